"""The words of an error are found in every house's body, fit one line and hold no key."""

from __future__ import annotations

import json

import pytest

from kdfast.teacher.api.error_words import MOST_CHARS, error_in, hide_secrets, one_line, read_server_error

OPENAI = {
    "error": {
        "message": "Invalid schema for function 'f'",
        "type": "invalid_request_error",
        "param": "tools[0].function.parameters",
        "code": "invalid_function_parameters",
    }
}
ANTHROPIC = {
    "type": "error",
    "error": {"type": "overloaded_error", "message": "Overloaded"},
    "request_id": "req_1",
}
VLLM = {"object": "error", "message": "no such model", "type": "NotFoundError", "param": None, "code": 404}
LLAMA_CPP = {
    "error": {
        "code": 400,
        "message": "the request exceeds the available context size",
        "type": "exceed_context_size_error",
        "n_ctx": 4096,
    }
}
FASTAPI = {"detail": [{"loc": ["body", "messages"], "msg": "Field required"}, {"msg": "Too short"}]}
AZURE = {
    "error": {
        "code": "content_filter",
        "message": "The response was filtered",
        "innererror": {"code": "ResponsibleAIPolicyViolation"},
    }
}
ROUTER = {
    "error": {"code": 502, "message": "Provider returned error", "metadata": {"raw": "upstream is down"}}
}
GOOGLE = [{"error": {"code": 429, "message": "Quota", "status": "RESOURCE_EXHAUSTED"}}]


@pytest.mark.parametrize(
    ("body", "words", "codes"),
    [
        (OPENAI, "Invalid schema for function 'f'", {"invalid_request_error", "invalid_function_parameters"}),
        (ANTHROPIC, "Overloaded", {"overloaded_error", "error"}),
        (VLLM, "no such model", {"notfounderror", "404"}),
        (LLAMA_CPP, "the request exceeds the available context size", {"400", "exceed_context_size_error"}),
        (FASTAPI, "body.messages: Field required; Too short", set()),
        (AZURE, "The response was filtered", {"content_filter", "responsibleaipolicyviolation"}),
        (ROUTER, "Provider returned error: upstream is down", {"502"}),
        (GOOGLE, "Quota", {"429", "resource_exhausted"}),
        ({"error": "model 'x' not found"}, "model 'x' not found", set()),
        ({"error": "bad", "error_type": "validation"}, "bad", {"validation"}),
        ({"detail": "Not Found"}, "Not Found", set()),
    ],
)
def test_json_bodies(body: object, words: str, codes: set[str]) -> None:
    error = read_server_error(json.dumps(body).encode())
    assert error.words == words
    assert error.codes == codes


def test_the_part_of_the_request_that_is_named() -> None:
    assert read_server_error(json.dumps(OPENAI).encode()).param == "tools[0].function.parameters"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"upstream connect error\r\n  or disconnect", "upstream connect error or disconnect"),
        (b"<html><head><title>504 Gateway Time-out</title></head><body><center><h1>504 Gateway Time-out</h1>"
         b"</center><hr><center>nginx</center></body></html>", "504 Gateway Time-out nginx"),
        (b"<!DOCTYPE html><html><head><title>Sorry</title><style>p{a:b}</style></head><body><script>if(a<b)x()"
         b"</script><p>You &amp; we are <b>blocked</b></p>", "Sorry You & we are blocked"),
        (b"", ""),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"[]", "[]"),
        (b"null", "null"),
        (b'{"error"', '{"error"'),
        (b"[" * 100_000, "[" * (MOST_CHARS - 3) + "..."),
    ],
)  # fmt: skip
def test_other_bodies(body: bytes, words: str) -> None:
    error = read_server_error(body)
    assert error.words == words
    assert error.codes == frozenset()


def test_a_page_of_open_brackets_takes_no_time() -> None:
    assert read_server_error(b"<html>" + b"<" * 2_000_000 + b"<title>" * 100_000).words


@pytest.mark.parametrize(
    "none", [{"error": None, "choices": []}, {"error": "", "id": 1}, {"choices": [{}]}, 3, []]
)
def test_no_error(none: object) -> None:
    assert error_in(none) is None


KEY = 'kd/"secret"+key=0123456789'


@pytest.mark.parametrize(
    "body",
    [
        f"Incorrect key: {KEY}.",
        json.dumps({"error": {"message": f"Bearer {KEY}", "param": KEY, "code": "x"}}),
        json.dumps({"answer": KEY}),
        "https://example.com/?key=kd%2F%22secret%22%2Bkey%3D0123456789",
        "<html><body>" + "x" * (MOST_CHARS - 10) + KEY,
        "x" * 16_380 + KEY,
        "<html>" + "<!-- x -->" * 1_637 + KEY,
    ],
)
def test_the_key_never_appears(body: str) -> None:
    error = read_server_error(body.encode(), [KEY])
    assert "secret" not in error.words.replace("[secret]", "")
    assert "0123" not in error.words + error.param


def test_a_key_that_the_server_masked_by_half_is_hidden() -> None:
    assert hide_secrets("Incorrect API key provided: sk-proj-****wxyz.", []) == (
        "Incorrect API key provided: [secret]."
    )
    assert hide_secrets("key_error in sk-learn and api-key", []) == "key_error in sk-learn and api-key"


def test_a_short_key_is_hidden_as_a_word_only() -> None:
    assert hide_secrets("none of nonesuch", ["none", "", " "]) == "[secret] of nonesuch"


def test_lines_are_joined_cut_and_printable() -> None:
    assert one_line("a\n\n\tb\x1b[31mc\u202ed") == "a b [31mc d"
    assert len(one_line("word " * 1000)) <= MOST_CHARS
