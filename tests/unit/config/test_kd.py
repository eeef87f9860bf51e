"""Section `kd`: which hidden states are compared, and what a teacher beside the student is for."""

from __future__ import annotations

from typing import Any

import pytest

from kdfast.config import KDConfig
from kdfast.config.teacher import TeacherConfig
from kdfast.errors import ConfigError


def test_layers_are_two_lists_of_one_length_or_left_open() -> None:
    assert KDConfig().hidden_state_student_layers is None
    given = KDConfig(hidden_state_student_layers=[1, -1], hidden_state_teacher_layers=[2, -1])
    assert given.hidden_state_teacher_layers == (2, -1)


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ([1], None, "must be null where kd.hidden_state_student_layers is, and else a list, got None"),
        (None, [1], r"must be null where kd.hidden_state_student_layers is, and else a list, got \(1,\)"),
        ([1, 2], [1], r"must be as many layers as kd.hidden_state_student_layers \(2\), .*, got \[1\]"),
        ([], [], r"must be as many layers as kd.hidden_state_student_layers \(0\), at least one, got \[\]"),
    ],
)
def test_other_layers_are_refused(ours: Any, theirs: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^kd.hidden_state_teacher_layers: {message}$"):
        KDConfig(hidden_state_student_layers=ours, hidden_state_teacher_layers=theirs)


def test_layers_have_no_effect_while_their_weight_is_0() -> None:
    keys = {"hidden_state_form", "hidden_state_student_layers", "hidden_state_teacher_layers"}
    assert KDConfig().unused() == keys
    assert KDConfig(hidden_state_weight=0.1).unused() == set()


@pytest.mark.parametrize("name", ["hidden_state_weight", "prompt_kl_weight"])
def test_some_terms_need_a_live_teacher(name: str) -> None:
    given = KDConfig(**{name: 0.5})
    given.check_live_teacher(True)
    with pytest.raises(
        ConfigError, match=rf"^kd.{name}: must be 0 without a teacher .*teacher.live.*, got 0.5$"
    ):
        given.check_live_teacher(False)


def test_a_live_teacher_needs_a_term() -> None:
    KDConfig().check_live_teacher(True)
    with pytest.raises(
        ConfigError, match=r"^teacher.live: must be false while kd.kl_weight, .* are 0, got True$"
    ):
        KDConfig(kl_weight=0).check_live_teacher(True)


@pytest.mark.parametrize(
    ("weights", "live", "reads"),
    [
        ({}, False, True),
        ({}, True, False),
        ({"kl_weight": 0.0}, False, False),
        ({"sampled_kl_weight": 0.1}, True, True),
    ],
)
def test_who_reads_the_teacher_store(weights: dict[str, float], live: bool, reads: bool) -> None:
    assert KDConfig(**weights).reads_store(live_teacher=live) == reads


def test_a_live_teacher_needs_a_model_and_no_store() -> None:
    assert TeacherConfig(live=True, model="some/model").store is None
    with pytest.raises(ConfigError, match=r"^teacher.model: required beside teacher.live"):
        TeacherConfig(live=True)


def test_a_live_teacher_reads_what_the_student_reads() -> None:
    with pytest.raises(
        ConfigError, match=r"^teacher.demonstrations: must be 0 with teacher.live .*same ids\), got 2$"
    ):
        TeacherConfig(live=True, model="some/model", store="store", demonstrations=2)


def test_ids_are_drawn_into_a_store_only() -> None:
    assert TeacherConfig(live=True, model="some/model", store="store", samples=4).samples == 4
    with pytest.raises(
        ConfigError, match=r"^teacher.samples: must be 0 with teacher.live, unless .*, got 4$"
    ):
        TeacherConfig(live=True, model="some/model", samples=4)
