"""Records: their form, their tools, and the check of every call."""

import json

import pytest

from kdfast.importers.smart_home.records import RecordWriter, Row, check_calls


def tool(name, **properties):
    parameters = {"type": "object", "properties": properties, "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": name, "parameters": parameters}}


TOOLS = {name: tool(name, n={"type": "integer"}) for name in "abcdef"}
CALL = Row("do a", "call", "train", "a", "do {x}", {"n": 1})
ANSWER = Row("what is ü", "out_of_domain", "train", "", "what is {s}", answer="No.")
CUT = Row("do", "missing_slot", "train", "b", "do {x}", answer="What?")


def records(rows, count, answered=True, seed=0):
    writer = RecordWriter(TOOLS, "en")
    return [json.loads(line) for line in writer.lines(rows, "test", count, answered=answered, seed=seed)]


def names(record):
    return [one["function"]["name"] for one in record["tools"]]


def test_a_call_and_an_answer():
    call, answer = records([CALL, ANSWER], None)
    assert call == {
        "messages": [{"role": "user", "content": "do a"}],
        "tools": list(TOOLS.values()),
        "truth_message": {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"type": "function", "function": {"name": "a", "arguments": {"n": 1}}}],
        },
        "tool_should_be_used": True,
        "metadata": {
            "id": "test-0",
            "slice": "train",
            "language": "en",
            "category": "call",
            "intent": "a",
            "template": "do {x}",
        },
    }
    assert answer["truth_message"] == {"role": "assistant", "content": "No."}
    assert answer["tool_should_be_used"] is False


def test_a_prompt_tells_nothing_of_its_answer():
    (prompt,) = records([CALL], None, answered=False)
    assert set(prompt) == {"messages", "tools", "metadata"}
    assert prompt["metadata"] == {"id": "test-0", "slice": "train", "language": "en"}


def test_some_tools_hold_the_right_one_in_any_place():
    made = [record for seed in range(10) for record in records([CALL] * 20, 4, seed=seed)]
    assert all(len(set(names(one))) == 4 and "a" in names(one) for one in made)
    assert {names(one).index("a") for one in made} == {0, 1, 2, 3}
    assert {name for one in made for name in names(one)} == set(TOOLS)


def test_a_tool_stands_in_few_different_sets():
    """A reader compiles the schemas of a set once: 50,000 sets would take minutes."""
    sets = {tuple(names(one)) for one in records([CALL] * 3000, 4)}
    assert 1 < len(sets) <= 16


def test_a_cut_command_is_offered_its_own_tool_and_other_questions_any():
    assert all("b" in names(one) for one in records([CUT] * 30, 2))
    assert any("b" not in names(one) for one in records([ANSWER] * 30, 2))


def test_more_tools_than_there_are_is_all_of_them():
    (made,) = records([CALL], 99)
    assert sorted(names(made)) == sorted(TOOLS)


def test_the_seed_chooses_the_tools():
    assert records([CALL] * 5, 3, seed=1) == records([CALL] * 5, 3, seed=1) != records([CALL] * 5, 3, seed=2)


def test_meanings():
    assert CALL.meaning == Row("x", "call", "test", "a", "y", {"n": 1}).meaning
    assert CALL.meaning != Row("x", "call", "test", "a", "y", {"n": 2}).meaning
    assert ANSWER.meaning != CUT.meaning


def test_a_call_that_breaks_its_schema_is_a_bug_that_raises():
    check_calls([CALL, ANSWER], TOOLS)
    with pytest.raises(AssertionError, match="breaks its schema"):
        check_calls([Row("do a", "call", "train", "a", "", {"n": "one"})], TOOLS)
