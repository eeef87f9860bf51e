"""Which refusal costs one record, and which ends the job: codes first, then words."""

from __future__ import annotations

import pytest

from kdfast.teacher.api.error_words import ServerError
from kdfast.teacher.api.refusals import RECORD_REASONS, Refusal, refusal_of


def refusal(status: int, words: str = "", *codes: str, param: str = "") -> Refusal | None:
    return refusal_of(status, ServerError(words, frozenset(codes), param))


def test_codes_decide_whatever_the_words_say() -> None:
    assert refusal(429, "wait a moment", "insufficient_quota") == Refusal("insufficient_quota", stops=True)
    assert refusal(429, "You exceeded your current quota, check billing", "429", "resource_exhausted") is None


@pytest.mark.parametrize("status", [408, 409, 429, 502, 503, 504, 529])
def test_words_make_no_refusal_of_what_may_pass(status: int) -> None:
    assert refusal(status, "the model was not found; content filter; context length; invalid schema") is None


@pytest.mark.parametrize(
    ("status", "words", "stops"),
    [
        (400, "The model `a/b:c` does not exist", True),
        (400, "model 'x' not found, try pulling it first", True),
        (400, "Invalid model: x", True),
        (400, "Invalid model output", False),
        (400, "your message speaks of a model and a file that is not found", False),
        (404, "model: x; you do not have access to it", True),
        (404, "no such page", False),
    ],
)
def test_unknown_models(status: int, words: str, stops: bool) -> None:
    found = refusal(status, words)
    assert found is not None
    assert (found.stops, found.reason == "unknown_model") == (stops, stops)


@pytest.mark.parametrize(
    "words",
    [
        "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade.",
        "Insufficient credits. Add more.",
        "Insufficient Balance",
        "Billing hard limit has been reached",
        "Your account is not active, please check your billing details on our website.",
        "You exceeded your current quota, please check your plan and billing details.",
    ],
)
def test_no_money(words: str) -> None:
    assert refusal(400, words) == Refusal("insufficient_quota", stops=True)


@pytest.mark.parametrize(
    "words",
    [
        "Invalid value for messages[0].content: 'Why does billing charge me twice?'",
        "billing",
        "unexpected role in: 'the transfer failed, insufficient funds'",
        "cannot parse 'your account is not active, please check your billing'",
    ],
)
def test_a_prompt_that_speaks_of_money_does_not_stop_the_job(words: str) -> None:
    found = refusal(400, words)
    assert found is not None
    assert not found.stops


@pytest.mark.parametrize("status", [400, 413, 422, 500])
def test_reasons_that_belong_to_a_record(status: int) -> None:
    codes = {
        "content_filter": "content_filter",
        "context_length": "context_length_exceeded",
        "refused_schema": "invalid_json_schema",
    }
    found = {refusal(status, "no", code) for code in codes.values()}
    assert found == {Refusal(reason, stops=False) for reason in RECORD_REASONS}
    assert set(codes) == RECORD_REASONS


def test_403_of_a_moderation_costs_one_record() -> None:
    assert refusal(403, "your input was flagged") == Refusal("content_filter", stops=False)
    assert refusal(401, "your account was flagged") == Refusal("not_authorised", stops=True)


@pytest.mark.parametrize("param", ["tools", "tools[0].function", "response_format", "functions.0"])
def test_a_named_part_of_the_request(param: str) -> None:
    assert refusal(400, "no", param=param) == Refusal("refused_schema", stops=False)
    assert refusal(400, "no", param="toolset") == Refusal("refused_request", stops=False)


def test_an_error_under_status_200_is_no_refusal_by_its_status() -> None:
    assert refusal(200, "upstream failed", "502") is None
    assert refusal(200, "x", "model_not_found") == Refusal("unknown_model", stops=True)
