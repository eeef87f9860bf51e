"""Control tokens in content are encoded as transformers' `sanitize_control_tokens` encodes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_store import build
from transformers import PreTrainedTokenizerFast

from kdfast import _rust
from kdfast.errors import DataError

CHATML = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}<tool_call>\n{{ c.function | tojson }}\n</tool_call>{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOKENIZER = PreTrainedTokenizerFast(tokenizer_object=tiny.train(), chat_template=CHATML)
PIECES = ["hi", " ", "\n", "<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|im_", "end|>", "\U000f0000", "é"]
CONTENT = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join).filter(str.strip)
# The end of an answer is taken off an answer that came with it, so a turn of an assistant does not end with one here.
TURNS = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "tool"]), "content": CONTENT}),
    max_size=3,
)
ASK = st.fixed_dictionaries({"role": st.just("user"), "content": CONTENT})
TOOLS = st.lists(
    st.fixed_dictionaries({"name": st.just("f"), "description": CONTENT}), min_size=1, max_size=1
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("content")


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TURNS, ASK, st.one_of(st.none(), TOOLS))
def test_the_prompt_has_the_ids_of_transformers(
    folder: Path, turns: list[Any], ask: dict[str, Any], tools: list[Any] | None
) -> None:
    record: dict[str, Any] = {"messages": [*turns, ask], "truth_text": "ok"}
    record |= {"tools": tools} if tools else {}
    row = build(folder, [record], template=_rust.ChatTemplate(CHATML)).row(0)
    expected = TOKENIZER.apply_chat_template(
        record["messages"],
        tools=tools,
        add_generation_prompt=True,
        sanitize_control_tokens=True,
        return_dict=False,
    )
    assert row["ids"][: row["response_start"]].tolist() == expected


def decoded(folder: Path, row: dict[str, Any]) -> tuple[str, int]:
    """The answer's text, and how many of its tokens are the end of a turn."""
    tokenizer = _rust.Tokenizer.from_file(folder)
    ids = row["ids"][row["response_start"] :].tolist()
    return tokenizer.decode(ids), ids.count(tokenizer.encode("<|im_end|>")[0])


def test_a_token_in_arguments_is_text_and_the_call_is_found(folder: Path) -> None:
    call = {"function": {"name": "f", "arguments": {"a": "stop at <|im_end|> please"}}}
    answer = {"role": "assistant", "content": None, "tool_calls": [call]}
    record = {"messages": [{"role": "user", "content": "q"}], "truth_message": answer}
    row = build(folder, [record], template=_rust.ChatTemplate(CHATML)).row(0)
    text, ends = decoded(folder, row)
    assert ends == 1
    assert json.loads(row["validated_arguments"]) == call["function"]["arguments"]
    start, end = row["spans"]["tool_args"][0]
    assert _rust.Tokenizer.from_file(folder).decode(row["ids"][start:end].tolist()).strip() in text


@pytest.mark.parametrize("answer", ["Hello.", "Hello.<|im_end|>", "Hello.<|im_end|>\n"])
@pytest.mark.parametrize("as_message", [False, True])
def test_an_answer_that_ended_already_ends_once(folder: Path, answer: str, as_message: bool) -> None:
    given = (
        {"truth_message": {"role": "assistant", "content": answer}} if as_message else {"truth_text": answer}
    )
    record = {"messages": [{"role": "user", "content": "q"}], **given}
    row = build(folder, [record], template=_rust.ChatTemplate(CHATML)).row(0)
    assert decoded(folder, row) == ("Hello.<|im_end|>", 1)
    assert len(row["spans"]["turn_end"]) == 1
    counted = build(folder, [record], template=_rust.ChatTemplate(CHATML)).header()[
        "kdfast.ended_already_rows"
    ]
    assert int(counted) == (answer != "Hello.")


def test_earlier_turns_that_ended_already_end_once(folder: Path) -> None:
    turns = [("user", "q"), ("assistant", "Hello.<|im_end|>"), ("user", "r")]
    record = {"messages": [{"role": role, "content": text} for role, text in turns], "truth_text": "ok"}
    row = build(folder, [record], template=_rust.ChatTemplate(CHATML), supervise="all").row(0)
    tokenizer = _rust.Tokenizer.from_file(folder)
    assert row["ids"].tolist().count(tokenizer.encode("<|im_end|>")[0]) == 4
    assert tokenizer.decode(row["ids"].tolist()).count("<|im_end|>") == 4


def test_refuse_and_allow(folder: Path) -> None:
    record = {"messages": [{"role": "user", "content": "a<|im_end|>b"}], "truth_text": "ok"}
    template = _rust.ChatTemplate(CHATML)
    with pytest.raises(DataError, match=r'the control token "<\|im_end\|>" stands in the content'):
        build(folder, [record], template=template, content_tokens="refuse")
    row = build(folder, [record], template=template, content_tokens="allow").row(0)
    plain = TOKENIZER.apply_chat_template(record["messages"], add_generation_prompt=True, return_dict=False)
    assert row["ids"][: row["response_start"]].tolist() == plain


def test_raw_texts_are_left_as_they_are(folder: Path) -> None:
    record = {"prompt": "<|im_start|>user\nq<|im_end|>\n", "truth_text": "a <|im_start|> b"}
    row = build(folder, [record], template=_rust.ChatTemplate(CHATML)).row(0)
    ids = _rust.Tokenizer.from_file(folder).encode(record["prompt"])
    assert row["ids"][: row["response_start"]].tolist() == ids
    assert decoded(folder, row)[0] == "a <|im_start|> b<|im_end|>"


def test_the_marks_themselves_are_refused_in_raw_texts(folder: Path) -> None:
    with pytest.raises(DataError, match=r"private character U\+F0000"):
        build(folder, [{"prompt": "q\U000f0000", "truth_text": "a"}])


@pytest.mark.parametrize(
    ("name", "opening", "text"),
    [
        ("hermes", "<tool_call>", '<tool_call>{"name": "f", "arguments": {"a": "<tool_call>"}}</tool_call>'),
        ("mistral", "[TOOL_CALLS]", '[TOOL_CALLS][{"name": "f", "arguments": {"a": "[TOOL_CALLS]"}}]'),
    ],
)
def test_the_marks_of_a_call_in_content_stay_tokens(
    tmp_path: Path, name: str, opening: str, text: str
) -> None:
    file = tiny.write_tokenizer(tmp_path) / "tokenizer.json"
    document = json.loads(file.read_text())
    for number, content in enumerate((opening, "</tool_call>")):
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        document["added_tokens"].append({"id": 900 + number, "content": content, "special": True, **flags})
    file.write_text(json.dumps(document))
    answer = {"role": "assistant", "content": text}
    record = {"messages": [{"role": "user", "content": f"write {opening}"}], "truth_message": answer}
    row = build(tmp_path, [record], template=_rust.ChatTemplate(CHATML), formats=[name]).row(0)
    start, (mark,) = row["response_start"], _rust.Tokenizer.from_file(file).encode(opening)
    assert row["ids"][:start].tolist().count(mark) == 0
    assert row["ids"][start:].tolist().count(mark) == 1
    assert len(row["spans"]["tool_args"]) == 1
    assert json.loads(row["validated_arguments"]) == {"a": opening}


# Cuts such content in two and writes the marks itself, as Qwen3's does.
QWEN3 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and '</think>' in m.content %}<think>\n"
    "{{ m.content.split('</think>')[0].split('<think>')[-1].strip('\n') }}\n</think>\n\n"
    "{{ m.content.split('</think>')[-1].lstrip('\n') }}{% else %}{{ m.content }}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_the_marks_of_a_thinking_block_in_an_answer_stay_tokens(tmp_path: Path) -> None:
    file = tiny.write_tokenizer(tmp_path) / "tokenizer.json"
    document = json.loads(file.read_text())
    first = 1 + max(token["id"] for token in document["added_tokens"])
    first = max(first, 1 + max(document["model"]["vocab"].values()))
    for number, content in enumerate(("<think>", "</think>")):
        added = document["added_tokens"][0] | {"id": first + number, "content": content, "special": False}
        document["added_tokens"].append(added)
    file.write_text(json.dumps(document))
    asked = {"role": "user", "content": "What does <think> mean?"}
    for content, opened, closed in (
        ("<think>\nMaybe.\n</think>\n\nYes.", 1, 1),
        ("The <think> mark opens a block.", 0, 0),
    ):
        record = {"messages": [asked], "truth_message": {"role": "assistant", "content": content}}
        row = build(tmp_path, [record], template=_rust.ChatTemplate(QWEN3)).row(0)
        prompt, answer = (
            row["ids"][: row["response_start"]].tolist(),
            row["ids"][row["response_start"] :].tolist(),
        )
        assert (answer.count(first), answer.count(first + 1)) == (opened, closed)
        assert prompt.count(first) == 0  # what a user wrote is text
        text = _rust.Tokenizer.from_file(tmp_path).decode(answer)
        assert text.removesuffix("<|im_end|>") == content
