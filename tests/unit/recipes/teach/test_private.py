"""What leaves the machine is counted, and replaced alike in prompt and right answer; terms need a yes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kdfast.recipes.teach.private import prepare_private, private_text
from kdfast.teacher.prompts import Prompt, Truth

ANN, BOB = "ann@work.org", "bob@work.org"
CARD = "4111 1111 1111 1111"


def made(index: int = 0, **parts: Any) -> Prompt:
    return Prompt(source=Path("prompts.jsonl"), line=index + 1, index=index, **parts)


def mail_tool(name: str = "send") -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"to": {"type": "string", "enum": [ANN, BOB]}}}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def test_each_part_gets_the_same_placeholders() -> None:
    arguments = json.dumps({"to": BOB})
    prompt = made(
        messages=[{"role": "user", "content": f"Ask {BOB}, not {ANN}."}],
        tools=[mail_tool()],
        tool_choice={"function": {"name": "send"}},
        truth=Truth(
            message={"tool_calls": [{"function": {"name": "send", "arguments": arguments}}]},
            accepted=[{"send": {"to": [BOB, ""]}}],
        ),
        metadata={"accepted": [{"send": {"to": [BOB, ""]}}], "author": ANN},
    )
    (got,), counts, number = prepare_private([prompt], redact=True)
    assert got.messages == [{"role": "user", "content": "Ask [EMAIL_1], not [EMAIL_2]."}]
    assert got.tools[0]["function"]["parameters"]["properties"]["to"]["enum"] == ["[EMAIL_2]", "[EMAIL_1]"]
    assert got.tool_choice == {"function": {"name": "send"}}
    assert got.truth is not None
    assert got.truth.message is not None
    assert got.truth.message["tool_calls"][0]["function"]["arguments"] == '{"to": "[EMAIL_1]"}'
    assert got.truth.accepted == [{"send": {"to": ["[EMAIL_1]", ""]}}] == got.metadata["accepted"]
    assert got.metadata["author"] == ANN  # it is not sent
    assert (got.source, got.line, got.index) == (prompt.source, 1, 0)
    assert counts == Counter(email=4)  # two in the message, two in the tool: the right answer is not sent
    assert number == 1
    assert prompt.messages == [{"role": "user", "content": f"Ask {BOB}, not {ANN}."}]


def test_a_placeholder_that_the_right_answer_has_already_is_not_taken() -> None:
    (got,), _, _ = prepare_private([made(prompt=f"Mail {ANN}", truth=Truth(text="[EMAIL_1]"))], redact=True)
    assert got.prompt == "Mail [EMAIL_2]"
    assert got.truth == Truth(text="[EMAIL_1]")


def test_without_redact_nothing_changes_and_all_is_counted() -> None:
    prompts = [
        made(0, prompt=f"{ANN} pays with {CARD}"),
        made(1, prompt="Nothing here."),
        made(2, messages=[{"role": "user", "content": ANN}]),
        made(3, prompt="What is it?", truth=Truth(text=ANN), metadata={"author": ANN}),
    ]
    got, counts, number = prepare_private(prompts, redact=False)
    assert got == prompts
    assert counts == Counter(email=2, card=1)
    assert number == 2


def test_what_is_private_in_the_right_answer_alone_is_replaced_and_not_counted() -> None:
    (got,), counts, number = prepare_private([made(prompt="Whom?", truth=Truth(text=ANN))], redact=True)
    assert got.truth == Truth(text="[EMAIL_1]")
    assert (counts, number) == (Counter(), 0)


@given(st.lists(st.sampled_from(["a", ANN, BOB, CARD]), max_size=4), st.booleans())
def test_one_prompt_says_nothing_about_another(words: list[str], redact: bool) -> None:
    prompts = [made(index, prompt=word) for index, word in enumerate(words)]
    together, counts, number = prepare_private(prompts, redact=redact)
    alone = [prepare_private([prompt], redact=redact) for prompt in prompts]
    assert together == [prompt for one, _, _ in alone for prompt in one]
    assert counts == sum((one for _, one, _ in alone), Counter())
    assert number == sum(word != "a" for word in words)


def test_a_prompt_without_private_text_stays_the_same_object() -> None:
    prompt = made(prompt="Nothing here.", tools=[], truth=Truth(text="No."))
    assert prepare_private([prompt], redact=True)[0][0] is prompt


def test_one_finding_is_spoken_of_as_one() -> None:
    text = private_text({"email": 1}, 1, 5, redact=False)
    assert text.startswith("1 e-mail address in 1 of 5 prompts leaves this machine")
    assert text.endswith("to replace it")
