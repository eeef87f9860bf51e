"""The trainer's check that the data carry what the enabled losses need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_run import record, write_teacher

from kdfast.config import KDConfig
from kdfast.data import KDDataset
from kdfast.errors import ConfigError
from kdfast.recipes.train.inputs import check_inputs

OFF = {
    "kl_weight": 0.0,
    "ce_teacher_weight": 0.0,
    "length_weight": 0.0,
    "early_tool_ce_weight": 0.0,
    "early_tool_prior_weight": 0.0,
}


def dataset(directory: Path, numbers: list[int], **changes: Any) -> KDDataset:
    path = directory / "data.jsonl"
    records = [record(n) | changes for n in numbers]
    kept = [{key: value for key, value in one.items() if value is not None} for one in records]
    path.write_text("".join(json.dumps(one) + "\n" for one in kept), encoding="utf-8")
    return KDDataset(
        path, write_teacher(directory / "model"), shapes=[512], cache=directory / "cache", threads=1
    )


def kd(**weights: float) -> KDConfig:
    return KDConfig(**{**OFF, **weights})


def test_terms_that_find_rows_pass(tmp_path: Path) -> None:
    data = dataset(tmp_path, [1, 3, 5])  # a call; no call due; a call and a teacher's answer
    enabled = {name: 0.1 for name in OFF if name != "kl_weight"} | {"early_tool_negative_weight": 0.1}
    assert check_inputs(kd(**enabled, early_tool_preamble_weight=0.1), data) == 0


@pytest.mark.parametrize(
    ("weight", "field", "remedy"),
    [
        ("kl_weight", "teacher_topk_logp", "kdfast teach"),
        ("sampled_kl_weight", "teacher_sample_ids", "set teacher.samples"),
        ("ce_teacher_weight", "labels of source teacher", "teacher_text"),
        ("early_tool_ce_weight", "teacher_prefix_ids", "tool_should_be_used"),
        ("early_tool_prior_weight", "tool_should_be_used", "tool_should_be_used"),
        ("early_tool_preamble_weight", "tool_call_mask", "tool_should_be_used"),
        ("hidden_state_weight", "a live teacher's hidden states", "from Python"),
    ],
)
def test_a_term_without_rows_names_its_key_the_field_and_the_remedy(
    tmp_path: Path, weight: str, field: str, remedy: str
) -> None:
    data = dataset(tmp_path, [3, 7])  # no call is due, truths only
    with pytest.raises(ConfigError, match=f"^kd.{weight}: needs {field}.*{remedy}.*, got 0.25$"):
        check_inputs(kd(**{weight: 0.25}), data)


def test_negatives_need_rows_that_must_not_call(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"early_tool_negative_weight.*no call is due"):
        check_inputs(kd(early_tool_negative_weight=0.1), dataset(tmp_path, [1, 2]))


def test_length_needs_an_answer_that_was_not_cut(tmp_path: Path) -> None:
    data = dataset(tmp_path, [1, 2], truth_message=None, teacher_text="On and on", finish_reason="length")
    with pytest.raises(ConfigError, match=r"kd.length_weight: needs an answer that ends"):
        check_inputs(kd(length_weight=0.1), data)


def test_all_that_is_missing_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        check_inputs(
            kd(kl_weight=0.5, ce_teacher_weight=0.3, early_tool_ce_weight=0.1), dataset(tmp_path, [3])
        )
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "kd.kl_weight", "kd.ce_teacher_weight", "kd.early_tool_ce_weight",
    ]  # fmt: skip


def test_hidden_states_need_a_live_teacher(tmp_path: Path) -> None:
    assert check_inputs(kd(hidden_state_weight=0.1), dataset(tmp_path, [1]), live_teacher=True) == 0
