"""Usage in every dialect; what cannot be right is missing, never 0."""

from __future__ import annotations

from typing import Any

import pytest

from kdfast.teacher.api.usage import Usage, read_usage


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


def test_a_part_is_no_larger_than_its_sum() -> None:
    with pytest.raises(ValueError, match="larger than their sum"):
        Usage(input_tokens=1, output_tokens=1, reasoning_tokens=2)
