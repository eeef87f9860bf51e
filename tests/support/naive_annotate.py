"""The Rust annotation of one prompt and one answer, written the slow, obvious way with Python's `tokenizers`."""

import json
from typing import Any

from tokenizers import Tokenizer


def token_bytes(tokenizer: Tokenizer, token: int) -> bytes:
    """The bytes of a byte-level token, from GPT-2's table."""
    content = tokenizer.id_to_token(token)
    if token in tokenizer.get_added_tokens_decoder():
        return content.encode()
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(hidden)}
    return bytes(table[character] for character in content)


def find_calls(text: str) -> list[dict[str, Any]]:
    """The complete Hermes calls and their spans in bytes, found by trying every closing tag."""
    calls, at = [], 0
    raw = text.encode()
    while (start := raw.find(b"<tool_call>", at)) >= 0:
        at = start + 1
        body = start + len(b"<tool_call>")
        end = raw.find(b"</tool_call>", body)
        while end >= 0:
            try:
                call = json.loads(raw[body:end])
            except ValueError:
                end = raw.find(b"</tool_call>", end + 1)
                continue
            calls.append({"span": (start, end + len(b"</tool_call>")), "call": call})
            at = end
            break
    return calls


def annotate(tokenizer: Tokenizer, prompt: str, answer: str, turn_end: str | None) -> dict[str, Any]:
    """The ids of a row, where its response is, and the spans of its calls in tokens."""
    ids = tokenizer.encode(prompt, add_special_tokens=False).ids
    start = len(ids)
    answer_ids = tokenizer.encode(answer, add_special_tokens=False).ids
    ends = [tokenizer.token_to_id(turn_end)] if turn_end else []
    spans = []
    for call in find_calls(answer):
        first, last = call["span"]
        touched, at = [], 0
        for index, token in enumerate(answer_ids):
            size = len(token_bytes(tokenizer, token))
            if at < last and at + size > first:
                touched.append(start + index)
            at += size
        spans.append([touched[0], touched[-1] + 1])
    return {
        "ids": ids + answer_ids + ends,
        "response_start": start,
        "response_length": len(answer_ids) + len(ends),
        "tool_call": spans,
    }
