"""The messages of a chat, as a client would send them back."""

from __future__ import annotations

import pytest

from kdfast import find_tool_calls
from kdfast.recipes.chat.conversation import Conversation

CALL = '<tool_call>\n{"name": "f", "arguments": {"city": "Rome"}}\n</tool_call>'
OTHER = '<tool_call>{"name": "g", "arguments": {}}</tool_call>'


def answered(text: str, *, begun_thinking: bool = False) -> Conversation:
    conversation = Conversation("Be brief.")
    conversation.ask("Hello?")
    thinking = "open" if begun_thinking else "closed"
    conversation.answer(text, find_tool_calls(text, thinking=thinking), begun_thinking=begun_thinking)
    return conversation


def test_calls_stand_apart_from_the_text() -> None:
    conversation = answered(f"Let me look.\n{CALL}\n{OTHER}")
    message = conversation.messages[-1]
    assert message["content"] == "Let me look."
    assert [call["function"] for call in message["tool_calls"]] == [
        {"name": "f", "arguments": {"city": "Rome"}},
        {"name": "g", "arguments": {}},
    ]
    assert conversation.waiting == [("call00001", "f"), ("call00002", "g")]


@pytest.mark.parametrize(
    ("text", "begun", "content"),
    [
        ("Hello.", False, "Hello."),
        ("<think>\nHm.\n</think>\n\nHello.", False, "Hello."),
        ("Hm.\n</think>\n\nHello.", True, "Hello."),
        ("Hm", True, ""),
        (f"<think>\n{CALL}\n</think>\nNo.", False, "No."),
    ],
)
def test_thinking_is_left_out(text: str, begun: bool, content: str) -> None:
    assert answered(text, begun_thinking=begun).messages[-1] == {"role": "assistant", "content": content}


def test_results_go_to_the_calls_in_turn() -> None:
    conversation = answered(CALL + OTHER)
    assert conversation.give_result("21") == "f"
    assert conversation.waiting == [("call00002", "g")]
    assert conversation.give_result("") == "g"
    assert [(one["tool_call_id"], one["name"], one["content"]) for one in conversation.messages[-2:]] == [
        ("call00001", "f", "21"),
        ("call00002", "g", ""),
    ]
    with pytest.raises(IndexError):
        conversation.give_result("22")


def test_a_question_ends_the_wait_and_new_forgets_all() -> None:
    conversation = answered(CALL)
    before, waiting = len(conversation.messages), conversation.waiting
    conversation.ask("Never mind.")
    assert conversation.waiting == []
    conversation.go_back(before, waiting)
    assert (len(conversation.messages), conversation.waiting) == (before, [("call00001", "f")])
    conversation.start_again()
    assert (conversation.messages, conversation.waiting) == ([{"role": "system", "content": "Be brief."}], [])
    assert Conversation().messages == []
