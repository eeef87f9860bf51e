"""Templates: which a home can use, and which are held out."""

import pytest
from small_import import parts
from small_intents import block, intents, language, write_wheel

from kdfast.errors import DataError
from kdfast.importers.smart_home.templates import TEST, TRAIN, VALIDATION, by_part, hold_out


@pytest.fixture
def wheel(tmp_path):
    return write_wheel(tmp_path / "w.whl")


def test_templates_that_the_home_cannot_use_are_counted_with_the_reason(wheel):
    own = parts(wheel).templates
    assert own.left_out == {"more than 1 numbers in a sentence": 1, "nothing in this home is a lawn_mower": 1}
    assert [one.text for one in own.incomplete] == ["vacuum [in] here"]
    assert own.incomplete[0].lacking == ("area",)
    assert {one.intent for one in own.spoken} == {"HassNevermind", "HassRespond"}


def test_the_speakers_room_is_no_argument(wheel):
    (template,) = [one for one in parts(wheel).templates.calls if one.text == "<light> on [in here]"]
    assert template.fixed == {"domain": "light"}
    assert template.order == ("domain",)


def test_what_a_call_cannot_do_without(wheel):
    needed = {one.text: one.needed for one in parts(wheel).templates.calls}
    assert needed["set [<the>] {name} brightness to [the] {brightness_level:brightness}"] == {
        "name",
        "brightness",
    }
    assert needed["add {todo_list_item:item} to [my|the] {name} list"] == {"item", "name"}
    assert needed["play {search_query}"] == {"search_query"}
    assert needed["<light> on [in here]"] == frozenset()


def test_a_slot_that_the_intent_lacks_leaves_its_template_out(tmp_path):
    data = language()
    data["intents"]["HassTurnOn"]["data"] += [
        block("x", "turn on {color}"),
        block("x", "turn on it", slots={"mood": "good"}),
        block("x", "turn on {nothing:name}"),
    ]
    own = parts(write_wheel(tmp_path / "w.whl", data=data)).templates
    assert own.left_out["the intent has no slot 'color'"] == 1
    assert own.left_out["the intent has no slot 'mood'"] == 1
    assert own.left_out["no list {nothing}"] == 1


def test_a_broken_template_is_named(tmp_path):
    for text, message in (
        ("turn on (the", "not a template that hassil can read"),
        ("turn on <nothing>", "a rule that is not there: <nothing>"),
        ("<loop>", "a rule contains itself: <loop>"),
    ):
        data = language()
        data["expansion_rules"]["loop"] = "a <loop>"
        data["intents"]["HassTurnOn"]["data"].append(block("x", text))
        with pytest.raises(DataError, match=message):
            parts(write_wheel(tmp_path / "w.whl", data=data))


def test_names_without_a_domain_are_those_of_the_combination(tmp_path):
    own, data = intents(), language()
    own["HassTurnOn"]["slot_combinations"]["special"] = {
        "slots": ["name"],
        "name_domains": {"usable": ["fan"]},
    }
    data["intents"]["HassTurnOn"]["data"] += [block("special", "spin {name}"), block("other", "flip {name}")]
    made = parts(write_wheel(tmp_path / "w.whl", data=data, own_intents=own)).templates
    domains = {one.text: one.domains for one in made.calls}
    assert domains["spin {name}"] == ("fan",)
    assert domains["flip {name}"] == ("light", "fan", "cover", "vacuum", "todo")


@pytest.mark.parametrize("seed", range(5))
def test_a_held_out_template_leaves_another_of_its_kind_in_training(wheel, seed):
    calls = parts(wheel, share=0.3, seed=seed).templates.calls

    def kind(one):
        return one.intent, one.combination, one.domains, tuple(one.fixed.items())

    trained = {kind(one) for one in calls if one.part == TRAIN}
    held = [one for one in calls if one.part != TRAIN]
    assert held
    assert {kind(one) for one in held} <= trained


def test_shares_of_held_out_templates(wheel):
    calls = parts(wheel).templates.calls

    def counts(share):
        for one in calls:
            one.part = TRAIN
        hold_out(calls, share, 0)
        return [sum(one.part == part for one in calls) for part in (TEST, VALIDATION)]

    assert counts(0.0) == [0, 0]
    assert counts(0.15) == [round(0.1 * len(calls)), round(0.15 * len(calls)) - round(0.1 * len(calls))]


def test_another_seed_holds_out_others(wheel):
    def held(seed):
        return {one.text for one in parts(wheel, seed=seed).templates.calls if one.part != TRAIN}

    assert held(0) == held(0)
    assert len({frozenset(held(seed)) for seed in range(4)}) > 1


def test_the_same_text_has_one_fate(tmp_path):
    data = language()
    data["intents"]["HassTurnOn"]["data"] += [
        block("name_only", "<turn> on [<the>] {name}", "<turn> [<the>] {name} on", domain="vacuum")
    ]
    wheel = write_wheel(tmp_path / "w.whl", data=data)
    held = 0
    for seed in range(6):
        calls = parts(wheel, share=0.4, seed=seed).templates.calls
        fates = {one.part for one in calls if one.text == "<turn> on [<the>] {name}"}
        assert len(fates) == 1
        held += fates != {TRAIN}
    assert held


def test_things_are_split_in_the_same_shares():
    split = by_part(range(100), 0.15, 0, "number")
    assert sorted(split[TRAIN] + split[TEST] + split[VALIDATION]) == list(range(100))
    assert [len(split[part]) for part in (TRAIN, TEST, VALIDATION)] == [85, 10, 5]
    assert by_part(["one"], 1.0, 0, "x") == {TRAIN: ["one"], TEST: [], VALIDATION: []}
