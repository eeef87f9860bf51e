"""What a key takes, whatever the section."""

from __future__ import annotations

import pytest

from kdfast.config import KDConfig, TeacherConfig, TrainConfig
from kdfast.errors import ConfigError


def test_an_integer_fits_64_bits() -> None:
    assert TeacherConfig(demonstrations_seed=2**63 - 1).demonstrations_seed == 2**63 - 1
    for number in (2**63, 10**30):
        with pytest.raises(ConfigError, match=rf"^train.num_steps: must be an integer >= 1, got {number}$"):
            TrainConfig(num_steps=number)


def test_the_length_of_an_answer_fits_32_bits() -> None:
    with pytest.raises(
        ConfigError, match=r"^kd.max_new_tokens: must be an integer >= 1 and <= 2147483647, got"
    ):
        KDConfig(max_new_tokens=2**31)
