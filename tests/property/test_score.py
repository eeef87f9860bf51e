"""An answer whose syntax gets worse never scores better."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kdfast.scoring import Score, quality, score_answer, summarise

pytestmark = pytest.mark.slow

TOOLS = [
    {
        "name": "tide",
        "parameters": {
            "type": "object",
            "properties": {"port": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["port"],
        },
    },
    {"name": "clock"},
]
CALLS = [
    {"name": "tide", "arguments": {"port": "Brest", "days": 2}},
    {"name": "tide", "arguments": {"port": 'Saint-Malo "x" {'}},
    {"name": "clock", "arguments": {}},
]
BETTER_IF_HIGH = ("parsed", "right_function", "schema_valid", "exact_match", "precision", "recall", "f1")


def hermes(calls: Sequence[dict[str, Any]]) -> str:
    return "\n".join(f"<tool_call>\n{json.dumps(call)}\n</tool_call>" for call in calls)


def mistral(calls: Sequence[dict[str, Any]]) -> str:
    return f"[TOOL_CALLS] {json.dumps(calls)}"


RIGHT = st.lists(st.sampled_from(CALLS), min_size=1, max_size=3)
WRITERS = {"hermes": hermes, "mistral": mistral}
MUTATIONS = (
    "cut",
    "delete",
    "insert",
    "trailing comma",
    "no closing",
    "text",
    "other marks",
    "xml",
    "quotes",
)


@st.composite
def mutated(draw: st.DrawFn, text: str) -> str:
    """The answer with its syntax made worse in one place."""
    kind, at = draw(st.sampled_from(MUTATIONS)), draw(st.integers(2, len(text) - 1))
    arguments = '"arguments": {'
    return {
        "cut": text[:at],
        "delete": text[:at] + text[at + 1 :],
        "insert": text[:at] + draw(st.sampled_from(list('{}[]",:<>x'))) + text[at:],
        "trailing comma": text.replace("}", ",}", 1),
        "no closing": text.replace("</tool_call>", "", 1).removesuffix("]"),
        "text": text.replace("}}", '}"}', 1).replace(arguments, '"arguments": "{', 1),
        "other marks": text.replace("<tool_call>", "<|tool_call|>", 1).replace("[TOOL_CALLS]", "functools"),
        "xml": text.replace("{", "<function=tide><parameter=port>", 1),
        "quotes": text.replace('"', "'"),
    }[kind]


def scored(text: str, calls: Sequence[dict[str, Any]], written: str, *, due: bool) -> Score:
    accepted = [{call["name"]: {key: [value] for key, value in call["arguments"].items()}} for call in calls]
    return score_answer(
        text,
        TOOLS,
        accepted=accepted if due else [],
        reference_text="",
        should_call=due,
        formats=[written],
    )


def numbers(score: Score) -> dict[str, float]:
    """Every share and every quality of this one answer."""
    shares = {name: share.fraction for name, share in summarise([score]).items()}
    values = {name: part["value"] for name, part in quality([score]).items() if name != "absent"}
    return {name: value for name, value in (shares | values).items() if value is not None}


@settings(max_examples=600)
@given(st.data(), RIGHT, st.sampled_from(list(WRITERS)))
def test_a_right_answer_with_worse_syntax_scores_no_better(
    data: st.DataObject, calls: list[dict[str, Any]], written: str
) -> None:
    right = WRITERS[written](calls)
    before = numbers(scored(right, calls, written, due=True))
    assert all(before[name] == (name in BETTER_IF_HIGH) for name in before)
    after = numbers(scored(data.draw(mutated(right)), calls, written, due=True))
    for name in after:
        assert (after[name] <= before[name]) if name in BETTER_IF_HIGH else (after[name] >= before[name])


@settings(max_examples=600)
@given(st.data(), RIGHT, st.sampled_from(list(WRITERS)))
def test_a_false_call_with_worse_syntax_stays_a_false_call(
    data: st.DataObject, calls: list[dict[str, Any]], written: str
) -> None:
    false = WRITERS[written](calls)
    before = scored(false, calls, written, due=False)
    assert (before.false_call, before.attempted_call) == (True, False)
    after = scored(data.draw(mutated(false)), calls, written, due=False)
    assert after.false_call
    assert after.parsed or after.attempted_call
    assert numbers(after)["false_call_rate"] == 1


@settings(max_examples=300)
@example([CALLS[0]], [CALLS[2]], 12)
@given(RIGHT, RIGHT, st.integers(0, 30))
def test_a_wrong_call_is_not_made_right_by_breaking_it(
    calls: list[dict[str, Any]], more: list[dict[str, Any]], at: int
) -> None:
    """Two calls where one is due are wrong, also if the second one is broken."""
    right, wrong = hermes(calls), hermes(more)
    broken = wrong[:at] + wrong[at + 1 :]
    for text in (right + wrong, right + broken, right + wrong[: at + 2]):
        score = scored(text, calls, "hermes", due=True)
        assert not score.exact_match
        assert not score.right_function
