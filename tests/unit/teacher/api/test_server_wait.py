"""`Retry-After` in its three forms and the limits of several houses."""

from __future__ import annotations

import pytest

from kdfast.teacher.api.server_wait import exhausted_wait_s, requested_wait_s, reset_s

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "3"}, 3.0),
        ({"RETRY-AFTER": " 0.5 "}, 0.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-4"}, 0.0),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:50 GMT"}, 30.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:10 GMT"}, 0.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:50 GMT", "Date": "Tue, 14 Nov 2023 22:13:40 GMT"}, 10.0),
        ({"retry-after": "Tuesday, 14-Nov-23 22:13:50 GMT"}, 30.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "1_0"}, None),
        ({"retry-after": "²"}, None),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": "", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "5"}, 5.0),
        ({}, None),
    ],
)
def test_requested_wait(headers: dict[str, str], wait: float | None) -> None:
    assert requested_wait_s(headers, NOW) == wait


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        ("6m0s", 360.0),
        ("1s", 1.0),
        ("20ms", 0.02),
        ("2m59.56s", 179.56),
        ("1h2m3s", 3723.0),
        ("1d", 86400.0),
        ("17", 17.0),
        ("1.5", 1.5),
        (str(int(NOW) + 60), 60.0),
        (str((int(NOW) + 60) * 1000), 60.0),
        (str(int(NOW) - 60), 0.0),
        ("2023-11-14T22:13:50Z", 30.0),
        ("2023-11-14T22:13:50", 30.0),
        ("", None),
        ("ms", None),
        ("5 minutes", None),
    ],
)
def test_reset(value: str, wait: float | None) -> None:
    assert reset_s(value, NOW) == (None if wait is None else pytest.approx(wait))


def test_only_exhausted_limits_ask_to_wait_and_the_last_one_counts() -> None:
    headers = {
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "20ms",
        "X-RateLimit-Remaining-Tokens": "0",
        "X-RateLimit-Reset-Tokens": "6s",
        "x-ratelimit-remaining-images": "3",
        "x-ratelimit-reset-images": "1h0m0s",
        "x-ratelimit-limit-requests": "0",
    }
    assert exhausted_wait_s(headers, NOW) == 6.0


@pytest.mark.parametrize(
    "headers",
    [
        {"x-ratelimit-remaining": "1", "x-ratelimit-reset": "5"},
        {"x-ratelimit-reset": "5"},
        {"x-ratelimit-remaining": "0"},
        {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "later"},
    ],
)
def test_no_limit_is_exhausted(headers: dict[str, str]) -> None:
    assert exhausted_wait_s(headers, NOW) is None


def test_anthropic_and_ietf_names() -> None:
    anthropic = {
        "anthropic-ratelimit-input-tokens-remaining": "0",
        "anthropic-ratelimit-input-tokens-reset": "2023-11-14T22:13:25Z",
    }
    assert exhausted_wait_s(anthropic, NOW) == 5.0
    assert exhausted_wait_s({"ratelimit-remaining": "0", "ratelimit-reset": "4"}, NOW) == 4.0
