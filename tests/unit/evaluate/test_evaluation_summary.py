"""What many answers come to, over all and by category; and how it is shown."""

import io
import json
import re
from dataclasses import replace

from rich.console import Console

from kdfast.evaluate import Answer, by_category, summary
from kdfast.evaluate.table import category_table, evaluation_table, why_wrong, wrong_answers_table
from kdfast.scoring import quality, score_calls


def answer(made=(), due=(), category="", *, should_call=None, **changes):
    """Calls of `f` with these numbers, where calls with those are due."""
    score = score_calls(
        [("f", {"n": number}) for number in made],
        all_valid=True,
        accepted=[{"f": {"n": [number]}} for number in due],
        tools=[],
        should_call=bool(due) if should_call is None else should_call,
    )
    values = {"text": f"answer {made}", "tokens": 30, "cut": False, "reference_text": f"right {due}"}
    return Answer(score=score, category=category, **values | changes)


ANSWERS = [
    answer([1], [1], "simple", reference_tokens=30),
    answer([2], [1], "simple", reference_tokens=20, line=7),
    answer([], [1], "simple", cut=True),
    answer([1, 2], [1, 2], "parallel", reference_tokens=60),
    answer([3], (), "none"),
    answer([], (), "none"),
]


def test_the_whole():
    found = summary(ANSWERS)
    assert (found["prompts"], found["due"]) == (6, 4)
    counts = {name: (share["count"], share["total"]) for name, share in found["table"].items()}
    assert counts == {
        "parsed": (3, 4),
        "right_function": (3, 4),
        "schema_valid": (3, 4),
        "exact_match": (2, 4),
        "missed_calls": (1, 4),
        "broken_calls": (0, 4),
        "unclosed": (0, 4),
        "false_calls": (1, 2),
        "attempted_calls": (0, 2),
        "cut": (1, 6),
    }
    assert all(share["low"] <= share["fraction"] <= share["high"] for share in found["table"].values())
    assert found["quality"] == quality([one.score for one in ANSWERS])
    assert found["mismatches"] == {"no_call": 1, "value": 1}
    assert found["length"]["ratio"]["count"] == 3
    json.dumps(found, allow_nan=False)


def test_prompts_without_a_right_answer_are_counted():
    unknown = [answer([], should_call=True), answer([1], should_call=True)]
    found = summary([*ANSWERS, *unknown])
    assert (summary(ANSWERS)["no_truth"], found["no_truth"]) == (0, 2)
    assert found["mismatches"] == {"no_call": 2, "no_truth": 1, "value": 1}
    assert found["table"]["missed_calls"]["count"] == 2
    assert found["table"]["right_function"]["count"] == 3


def test_answers_with_calls_in_other_formats_are_counted():
    bare = answer([], [1])
    bare = replace(bare, score=replace(bare.score, calls_not_counted=2))
    assert (summary(ANSWERS)["not_counted"], summary([*ANSWERS, bare])["not_counted"]) == (0, 1)


def test_by_category():
    found = by_category(ANSWERS)
    assert list(found) == ["none", "parallel", "simple"]
    assert [one["prompts"] for one in found.values()] == [2, 1, 3]
    assert found["none"]["table"]["false_calls"]["count"] == 1
    assert found["none"]["quality"]["absent"]["f1"] == "no prompt needs a call"
    assert found["simple"]["quality"]["f1"]["value"] == summary(ANSWERS[:3])["quality"]["f1"]["value"]
    assert "per_prompt" not in json.dumps(found)


def test_no_categories():
    assert by_category([answer([1], [1])]) == {}
    assert by_category([]) == {}
    mixed = by_category([answer([1], [1]), answer([1], [1], "simple")])
    assert list(mixed) == ["", "simple"]


def shown(*tables):
    console = Console(file=io.StringIO(), width=80)
    for table in tables:
        console.print(table)
    return console.file.getvalue()


def test_the_table_fits_a_terminal_and_has_intervals():
    found = summary(ANSWERS)
    text = shown(evaluation_table({"free": found, "constrained": found}))
    assert "…" not in text
    f1 = found["quality"]["f1"]
    assert f"{f1['value']:.2f} ({f1['low']:.2f} to {f1['high']:.2f})" in text
    assert "2/4 50 % (" in text
    assert text.count("constrained") == 1
    assert shown(evaluation_table({"free": summary([])})).count("no prompts") == 10


def test_a_file_of_an_older_version_is_shown():
    old = {"table": {"parsed": {"count": 3, "total": 4, "fraction": 0.75}}}
    text = shown(evaluation_table({"before": old, "after": summary(ANSWERS)}))
    assert re.search(r"a call was found +3/4 75 % +3/4 75 % \(", text)


def test_categories_are_shown():
    text = shown(category_table({"categories": by_category([*ANSWERS, answer([1], [1])])}, "By category"))
    assert "(none)" in text
    assert "parallel" in text
    assert "100 %" in text


def test_wrong_answers_are_shown_with_their_reason_and_without_markup():
    wrong = [one.to_json() for one in [*ANSWERS[:2], answer([1], [2], text="[bold]</script>" + "x" * 400)]]
    text = shown(wrong_answers_table(wrong, 3))
    assert "The first wrong answers" in text
    assert " 7 " in text
    assert "[bold]</script>" in text
    assert "..." in text
    assert wrong_answers_table(wrong, 0) is None
    assert wrong_answers_table([ANSWERS[0].to_json()], 3) is None


def test_why_an_answer_is_wrong():
    reasons = [why_wrong(one.to_json()["score"]) for one in ANSWERS]
    assert reasons == ["", "value: n: 2 is none of [1]", "no call", "", "no call is due", ""]
