"""Usage in every dialect; what cannot be right is missing, never 0."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdfast.teacher.api.usage import (
    MOST_TOKENS,
    Usage,
    read_usage,
    said_usage,
    usage_from_json,
    usage_json,
    usage_of_body,
)


def read(**usage: Any) -> Usage | None:
    return read_usage({"usage": usage})


def test_openai() -> None:
    usage = read(
        prompt_tokens=100,
        completion_tokens=40,
        total_tokens=140,
        prompt_tokens_details={"cached_tokens": 60, "audio_tokens": 0},
        completion_tokens_details={"reasoning_tokens": 25},
    )
    assert usage == Usage(input_tokens=100, cached_tokens=60, output_tokens=40, reasoning_tokens=25)


def test_nulls_among_the_details() -> None:
    usage = read(
        prompt_tokens=10,
        completion_tokens=4,
        total_tokens=None,
        prompt_tokens_details={"cached_tokens": None},
        completion_tokens_details=None,
    )
    assert usage == Usage(input_tokens=10, output_tokens=4)


def test_deepseek_and_whole_floats() -> None:
    usage = read(
        prompt_tokens=10.0, completion_tokens=4, prompt_cache_hit_tokens=8, prompt_cache_miss_tokens=2
    )
    assert usage == Usage(input_tokens=10, cached_tokens=8, output_tokens=4)


def test_reasoning_that_is_left_out_of_the_completion() -> None:
    hidden = Usage(input_tokens=10, output_tokens=104, reasoning_tokens=100)
    assert read(prompt_tokens=10, completion_tokens=4, total_tokens=114) == hidden
    details = {"reasoning_tokens": 100}
    assert (
        read(prompt_tokens=10, completion_tokens=4, total_tokens=114, completion_tokens_details=details)
        == hidden
    )
    assert read(prompt_tokens=10, completion_tokens=4, completion_tokens_details=details) == hidden


def test_anthropic() -> None:
    usage = read(
        input_tokens=20, output_tokens=7, cache_read_input_tokens=100, cache_creation_input_tokens=30
    )
    assert usage == Usage(input_tokens=150, cached_tokens=100, output_tokens=7)


def test_openais_newer_names() -> None:
    usage = read(
        input_tokens=20,
        output_tokens=7,
        input_tokens_details={"cached_tokens": 16},
        output_tokens_details={"reasoning_tokens": 5},
    )
    assert usage == Usage(input_tokens=20, cached_tokens=16, output_tokens=7, reasoning_tokens=5)


@pytest.mark.parametrize(
    "usage",
    [
        {},
        {"prompt_tokens": 5},
        {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        {"prompt_tokens": -1, "completion_tokens": 3},
        {"prompt_tokens": "5", "completion_tokens": 3},
        {"prompt_tokens": True, "completion_tokens": 3},
        {"prompt_tokens": 5.5, "completion_tokens": 3},
        {"prompt_tokens": float("inf"), "completion_tokens": 3},
        {"prompt_tokens": float("nan"), "completion_tokens": 3},
        {"prompt_tokens": 5, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 6}},
        {"input_tokens": 5},
    ],
)
def test_what_cannot_be_right_is_missing(usage: dict[str, Any]) -> None:
    assert read(**usage) is None


@pytest.mark.parametrize("document", [{}, {"usage": None}, {"usage": [1]}, {"usage": "many"}])
def test_no_usage(document: dict[str, Any]) -> None:
    assert read_usage(document) is None


def test_more_tokens_than_a_request_can_have_are_no_usage() -> None:
    most = Usage(input_tokens=MOST_TOKENS, output_tokens=1)
    assert said_usage({"usage": {"prompt_tokens": MOST_TOKENS, "completion_tokens": 1}}) == most
    for usage in (
        {"prompt_tokens": MOST_TOKENS + 1, "completion_tokens": 1},
        {"prompt_tokens": 1, "completion_tokens": 10**18},
        {"prompt_tokens": 1e300, "completion_tokens": 1},
    ):
        assert said_usage({"usage": usage}) is None
        assert usage_from_json(usage) is None
        assert usage_of_body(json.dumps({"usage": usage}).encode()) is None
    assert usage_from_json({"input_tokens": 10**18, "output_tokens": 1, "cached_tokens": 0}) is None


@pytest.mark.parametrize(
    "body", [b"", b"no JSON", b"[]", b"3", b"null", b"\xff", b'{"usage": 3}', b"[" * 100_000]
)
def test_bodies_that_state_no_usage(body: bytes) -> None:
    assert usage_of_body(body) is None


counts = st.integers(0, MOST_TOKENS)


@given(counts, counts, counts, counts, st.booleans())
def test_what_the_journal_keeps_is_read_back(
    prompt: int, cached: int, output: int, reasoning: int, is_counted: bool
) -> None:
    usage = Usage(
        input_tokens=prompt,
        cached_tokens=min(cached, prompt),
        output_tokens=output,
        reasoning_tokens=min(reasoning, output),
    )
    kept = usage_json(usage, is_counted=is_counted)
    assert usage_from_json(json.loads(json.dumps(kept))) == usage
    assert ("counted" in kept) == is_counted


@pytest.mark.parametrize(
    "wrong", [{"input_tokens": "7"}, {"input_tokens": None}, {"output_tokens": True}, {"cached_tokens": 9}]
)
def test_what_the_journal_cannot_have_kept_is_missing(wrong: dict[str, Any]) -> None:
    right = usage_json(Usage(input_tokens=7, output_tokens=2), is_counted=False)
    assert usage_from_json({**right, **wrong}) is None
    assert usage_from_json(None) is None


def test_a_part_is_no_larger_than_its_sum() -> None:
    with pytest.raises(ValueError, match="larger than their sum"):
        Usage(input_tokens=1, output_tokens=1, reasoning_tokens=2)
