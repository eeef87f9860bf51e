"""Sentences that need no call: every kind, what is held out, what is answered."""

import copy
import random

import pytest
import yaml
from small_import import parts
from small_intents import HOME, block, language, write_wheel

from kdfast.errors import DataError
from kdfast.importers.smart_home.no_call import (
    NO_CALL_SENTENCE,
    NO_CALL_TEMPLATE,
    SHARES,
    UNKNOWN_NAME,
    NoCalls,
)
from kdfast.importers.smart_home.templates import TEST, TRAIN, VALIDATION

QUESTIONS = [f"who wrote book {number}" for number in range(40)]


def no_calls(small, questions=QUESTIONS, share=0.3):
    return NoCalls(small.templates, small.calls, small.home, small.reader, questions, (share, 0))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return parts(write_wheel(tmp_path_factory.mktemp("wheel") / "w.whl"), share=0.3)


@pytest.fixture(scope="module")
def rows(small):
    """By kind and part 300 draws."""
    own, rng = no_calls(small), random.Random(0)
    return {
        kind: {
            part: [row for _ in range(300) if (row := make(part, rng))] for part in (TRAIN, VALIDATION, TEST)
        }
        for kind, make in own.makers.items()
    }


def test_there_are_rows_of_every_kind(rows):
    assert list(rows) == [kind for kind in rows if kind in SHARES]
    assert set(rows) == set(SHARES)
    assert abs(sum(SHARES.values()) - 1) < 1e-9
    for kind, own in rows.items():
        assert own[TRAIN], kind
        assert {row.category for part in own.values() for row in part} == {kind}
        assert {row.slice for row in own[TRAIN]} == {TRAIN}


def test_no_row_is_a_command(small, rows):
    own = no_calls(small)
    rng = random.Random(1)
    polite = small.home.polite
    for make in own.makers.values():
        for _ in range(100):
            row = make(TRAIN, rng)
            if row is None:
                continue
            text = row.text
            for words in polite.before:
                text = text.removeprefix(words)
            for words in polite.after:
                text = text.removesuffix(words)
            assert not small.reader.sentences_of(text), row


def test_answers_are_those_of_the_home(small, rows):
    answers = small.home.answers
    assert {row.answer for row in rows["out_of_domain"][TRAIN]} == {answers.refusal}
    assert {row.answer for row in rows["unknown_device"][TRAIN]} == {answers.unknown_device}
    assert {row.answer for row in rows["unknown_area"][TRAIN]} == {answers.unknown_area}
    assert {row.answer for row in rows["nevermind"][TRAIN]} == {answers.nevermind}
    assert {row.answer for row in rows["greeting"][TRAIN]} == set(answers.responses.values())
    assert {row.answer for row in rows["missing_slot"][TRAIN]} <= set(answers.missing.values())
    assert {row.answer for row in rows["few_words"][TRAIN]} <= {answer for _, answer in small.home.few_words}


def test_held_out_rows_are_made_from_what_training_has_not(rows):
    for kind in ("out_of_domain", "irrelevant"):
        trained = {row.template for row in rows[kind][TRAIN]}
        for part in (VALIDATION, TEST):
            assert {row.slice for row in rows[kind][part]} == {NO_CALL_TEMPLATE}
            assert not {row.template for row in rows[kind][part]} & trained


def test_held_out_names_are_not_those_of_training(small, rows):
    unknown = [name for names in small.home.unknown_devices.values() for name in names]
    for kind, names in (("unknown_device", unknown), ("unknown_area", small.home.unknown_areas)):
        said = {
            part: {
                name
                for row in own
                if row.slice in (TRAIN, UNKNOWN_NAME)
                for name in names
                if name in row.text
            }
            for part, own in rows[kind].items()
        }
        assert said[TRAIN]
        assert said[TEST]
        assert not said[TRAIN] & (said[TEST] | said[VALIDATION])
        assert {row.slice for row in rows[kind][TEST]} == {UNKNOWN_NAME}


def test_held_out_cuts_are_at_words_where_training_is_not_cut(small, rows):
    parts_of = {one.text: one.part for one in small.templates.calls}
    assert rows["missing_slot"][TEST]
    for part in (TEST, VALIDATION):
        assert {parts_of[row.template] for row in rows["missing_slot"][part]} <= {part}
    own, rng = no_calls(small), random.Random(0)
    known = [row for _ in range(200) if (row := own.missing_slot(TEST, rng, known=True))]
    assert {row.slice for row in known} == {NO_CALL_SENTENCE}
    assert {parts_of[row.template] for row in known} == {TRAIN}


def test_whole_sentences_that_leave_the_room_open_are_asked_about(rows):
    here = [row for row in rows["missing_slot"][TRAIN] if row.template == "vacuum [in] here"]
    assert here or len(rows["missing_slot"][TRAIN]) < 300
    assert {row.answer for row in here} <= {"In which room?"}


def test_timers_are_not_asked_for_unknown_rooms(rows):
    assert "HassStartTimer" not in {row.intent for row in rows["unknown_area"][TRAIN]}


def test_where_nothing_is_held_out_only_the_sentence_is_new(small):
    own, rng = no_calls(small, share=0.0), random.Random(0)
    for kind in ("out_of_domain", "few_words", "unknown_device", "irrelevant"):
        row = next(row for _ in range(100) if (row := own.makers[kind](TEST, rng)))
        assert row.slice == NO_CALL_SENTENCE


def test_kinds_without_sentences_are_left_out(tmp_path):
    data = language()
    del data["intents"]["HassNevermind"], data["intents"]["HassRespond"]
    own = no_calls(parts(write_wheel(tmp_path / "w.whl", data=data)), questions=[])
    assert set(SHARES) - set(own.makers) == {"irrelevant", "greeting", "nevermind"}


def test_places_of_one_name_may_differ(small):
    own, rng = no_calls(small, share=0.0), random.Random(0)
    texts = {row.text for _ in range(400) if (row := own.makers["out_of_domain"](TRAIN, rng))}
    assert {"does anna like my boss", "does anna like anna"} <= texts


def test_a_slot_without_a_question_is_named(tmp_path):
    content = copy.deepcopy(yaml.safe_load(HOME.read_text(encoding="utf-8")))
    del content["answers"]["missing"]["brightness"]
    home = tmp_path / "home.yaml"
    home.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(DataError, match=r"answers\.missing: no question for the slots brightness; add them"):
        no_calls(parts(write_wheel(tmp_path / "w.whl"), home=home))


def test_a_response_without_a_text_is_named(tmp_path):
    data = language()
    data["intents"]["HassRespond"]["data"].append(block("default", "who are you", response="creator"))
    with pytest.raises(DataError, match=r"answers\.responses: no text for creator; add it"):
        no_calls(parts(write_wheel(tmp_path / "w.whl", data=data)))
