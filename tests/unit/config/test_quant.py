"""Section `quant`: defaults per format, when the phase begins and its scales freeze, what is refused."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdfast.config.quant import QuantConfig
from kdfast.errors import ConfigError


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, "int8_channel"),
        ({"format": "q8_0"}, "q8_0"),
        ({"format": "q4_0"}, "q8_0"),
        ({"format": "q4_0", "embeddings": "same"}, "q4_0"),
        ({"format": "q4_0", "embeddings": "int8"}, "int8_channel"),
        ({"embeddings": "none"}, None),
    ],
)
def test_the_format_of_embeddings(keys, expected):
    assert QuantConfig(**keys).embedding_format == expected


@given(
    start=st.integers(0, 99).map(lambda hundredths: hundredths / 100),
    total=st.integers(1, 5000),
)
def test_the_phase_begins_exactly_at_its_fraction(start, total):
    first = QuantConfig(start_fraction=start).phase_start(total)
    share = Fraction(round(start * 100), 100)
    assert Fraction(first, total) >= share
    assert first == 0 or Fraction(first - 1, total) < share


def test_when_scales_freeze():
    config = QuantConfig(freeze_fraction=0.25)
    assert config.freeze_start(100, 80) == 95
    assert config.freeze_start(100, 60) == 90  # a resumed run keeps its own first step
    assert config.freeze_start(3, 1) is None  # a quarter of two steps is none
    assert QuantConfig(freeze_fraction=0).freeze_start(100, 80) is None
    assert QuantConfig(freeze_fraction=1).freeze_start(100, 80) == 80
    assert all(QuantConfig(format=name).freeze_start(100, 80) is None for name in ("q4_0", "q8_0"))


def test_defaults_that_depend_on_the_format():
    assert [QuantConfig(format=name).lowest_cosine for name in ("int8_channel", "q8_0", "q4_0")] == [
        0.999,
        0.999,
        0.95,
    ]
    assert QuantConfig(format="q4_0", min_cosine=0.9).lowest_cosine == 0.9
    assert QuantConfig(learning_rate="3e-6").peak == 3e-6
    assert all(0 < QuantConfig(format=name).peak < 1e-3 for name in ("int8_channel", "q8_0", "q4_0"))


def test_a_phase_that_is_too_short_is_refused():
    config = QuantConfig(enabled=True, min_steps=20)
    config.check_steps(100)
    words = r"^quant.min_steps: must be at most the steps under quantisation \(19 of 99\); raise .*, got 20$"
    with pytest.raises(ConfigError, match=words):
        config.check_steps(99)
    QuantConfig(min_steps=20).check_steps(1)  # quantisation is off


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", "int4"),
        ("format", None),
        ("embeddings", "q4_0"),
        ("start_fraction", 1.0),
        ("start_fraction", -0.1),
        ("start_fraction", None),
        ("learning_rate", 0),
        ("warmup_steps", -1),
        ("min_steps", 0),
        ("freeze_fraction", 1.5),
        ("min_cosine", 2),
        ("max_drift_ratio", 0.5),
        ("diverging_ratio", 1),
        ("enabled", "yes"),
    ],
)
def test_values_out_of_range_are_refused(key, value):
    with pytest.raises(ConfigError, match=rf"^quant.{key}: must be "):
        QuantConfig(**{key: value})


def test_a_cosine_that_q4_0_never_reaches_is_refused():
    with pytest.raises(ConfigError, match=r"^quant.min_cosine: must be at most 0.999 with q4_0"):
        QuantConfig(format="q4_0", min_cosine=0.9999)
    assert QuantConfig(min_cosine=0.9999).lowest_cosine == 0.9999


def test_the_float_student_teaches_where_4_bits_lose_something():
    assert [QuantConfig(format=name).self_weight for name in ("q4_0", "q8_0", "int8_channel")] == [1, 0, 0]
    assert QuantConfig(format="q4_0", self_kd_weight=0).self_weight == 0
    assert QuantConfig(self_kd_weight=0.5).self_weight == 0.5


def test_a_phase_that_learns_nothing_is_refused():
    with pytest.raises(
        ConfigError, match=r"^quant.task_factor: must be above 0 while quant.self_kd_weight is 0"
    ):
        QuantConfig(task_factor=0)
    assert QuantConfig(task_factor=0, self_kd_weight=1).task_factor == 0


def test_keys_without_effect():
    assert QuantConfig().unused() == set(QuantConfig.names()) - {"enabled"}
    assert QuantConfig(enabled=True).unused() == {"max_drift_ratio", "task_factor"}
    assert QuantConfig(enabled=True, format="q4_0", self_kd_weight=1).unused() == {"freeze_fraction"}
    assert QuantConfig(enabled=True, format="q8_0", self_kd_weight=1).unused() == {
        "freeze_fraction",
        "max_drift_ratio",
    }
