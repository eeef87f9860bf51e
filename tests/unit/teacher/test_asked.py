"""What is known of a request that nobody described further."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from kdfast.teacher.api.body import RequestSettings, request_of
from kdfast.teacher.asked import Asked
from kdfast.teacher.prompts import Prompt

SETTINGS = RequestSettings(base_url="http://localhost", model="m", answers_per_prompt=2, temperature=1.0)


def test_a_prompt_and_a_request_for_it() -> None:
    prompt = Prompt(source=Path("p"), line=5, index=4, prompt="x", tools=[{"name": "a.b"}])
    request, names = request_of(prompt, 1, SETTINGS)
    asked = Asked(prompt=prompt, request=request, names=names, input_tokens=3)
    assert asked.request.order == 9
    assert asked.names.own(asked.names.sent("a.b")) == "a.b"
    assert (asked.output_tokens, asked.shared_tokens, asked.worst_micro) == (0, 0, 0)
    assert asked.thinking == "closed"
    with pytest.raises(FrozenInstanceError):
        asked.input_tokens = 4  # type: ignore[misc]


def test_without_tools_no_name_is_mapped() -> None:
    prompt = Prompt(source=Path("p"), line=1, index=0, prompt="x")
    asked = Asked(prompt=prompt, request=request_of(prompt, 0, SETTINGS)[0], input_tokens=3)
    assert asked.names.own("a.b") == "a.b"
