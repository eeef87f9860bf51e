"""The trainer's check that the data carry what the enabled losses need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
from tiny_run import record, write_config, write_teacher

from kdfast import _rust
from kdfast.config import DataConfig, KDConfig, load_config
from kdfast.data import KDDataset
from kdfast.errors import ConfigError
from kdfast.recipes.train.inputs import (
    check_inputs,
    check_live_ids,
    check_shape_weights,
    held_out_loss_problem,
)

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
        ("hidden_state_weight", "a live teacher's hidden states", "teacher.live: true"),
        ("prompt_kl_weight", "a live teacher's distribution", "teacher.live: true"),
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


def test_a_live_teacher_gives_what_its_terms_need(tmp_path: Path) -> None:
    given = kd(hidden_state_weight=0.1, prompt_kl_weight=0.1, kl_weight=0.5)
    assert check_inputs(given, dataset(tmp_path, [1]), live_teacher=True) == 0


def test_a_live_teacher_knows_every_id_of_the_rows(tmp_path: Path) -> None:
    data = dataset(tmp_path, [1, 3])
    highest = [max(data.ids(row)) for row in range(2)]
    check_live_ids(data, max(highest) + 1)
    with pytest.raises(ConfigError) as caught:
        check_live_ids(data, highest[0])
    assert str(caught.value) == (
        "data.tokenizer: a live teacher must know every id; use the teacher's tokenizer, or set teacher.live to false: "
        f"row 0 has the id {highest[0]}, and only those below {highest[0]} are shared"
    )


def test_the_temperature_is_the_one_of_the_teachers_store(tmp_path: Path) -> None:
    data = dataset(tmp_path, [3])
    with _rust.TeacherWriter.open(
        tmp_path / "store", "hot", k=2, vocab_size=300, samples=0, logprob_temperature=2.0
    ) as writer:
        data.open_teacher(writer.path)
    with pytest.raises(ConfigError) as caught:
        check_inputs(kd(kl_weight=0.5), data)
    allowed = "must be the temperature of the teacher's log-probabilities (2.0), got 1.0"
    assert str(caught.value) == f"kd.temperature: {allowed}"
    # a live teacher's distribution holds at any temperature
    assert check_inputs(kd(kl_weight=0.5), data, live_teacher=True) == 0
    # with that temperature the next check fails, as the store has no rows; without the divergence none does
    with pytest.raises(ConfigError, match=r"^kd.kl_weight: needs teacher_topk_logp"):
        check_inputs(kd(kl_weight=0.5, temperature=2.0), data)
    assert check_inputs(kd(ce_truth_weight=0.5), data) == 0


def test_terms_that_look_at_openings_need_an_id_that_opens_a_call(tmp_path: Path) -> None:
    path, model = tmp_path / "data.jsonl", tmp_path / "model"
    document = json.loads((tiny_models.write_tokenizer(model) / "tokenizer.json").read_text(encoding="utf-8"))
    del document["model"]["vocab"]["<"]
    (model / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    path.write_text('{"prompt": "Hello", "teacher_text": "Hello."}\n', encoding="utf-8")
    data = KDDataset(path, model, shapes=[512], template="hermes", cache=tmp_path / "cache", threads=1)
    with pytest.raises(ConfigError) as caught:
        check_inputs(kd(early_tool_negative_weight=0.5, early_tool_prior_weight=0.25), data)
    why = "must be 0: no id of the tokenizer can open a call ('<tool_call>'); or set another data.tool_call_format"
    assert str(caught.value).splitlines() == [
        f"kd.early_tool_prior_weight: {why}, got 0.25",
        f"kd.early_tool_negative_weight: {why}, got 0.5",
    ]
    assert check_inputs(kd(ce_teacher_weight=0.5, ce_truth_weight=0.0), data) == 0


def test_a_shape_with_rows_has_a_chance() -> None:
    def config(probs: Any) -> DataConfig:
        return DataConfig(train=Path("t"), tokenizer=Path("t"), shapes=(8, 16, 32), shape_probs=probs)

    lengths = np.array([5, 8, 17], dtype=np.int32)  # shapes 8 and 32
    for probs in ("natural", "production", (0, 1, 1), (1, 0, 0)):
        check_shape_weights(config(probs), lengths)
    with pytest.raises(ConfigError) as caught:
        check_shape_weights(config((0, 1, 0)), lengths)
    allowed = "must be above 0 for a shape that has rows (8, 32), got [0.0, 1.0, 0.0]"
    assert str(caught.value) == f"data.shape_probs: {allowed}"


def test_held_out_rows_without_a_term_give_no_loss(tmp_path: Path) -> None:
    """Ground truths are held out, and only teachers' answers are learned."""
    truths = dataset(tmp_path, [1, 3], teacher_text=None)
    (tmp_path / "project").mkdir()
    path = write_config(tmp_path / "project")
    off = [f"kd.{name}=0" for name in OFF] + ["kd.ce_truth_weight=0", "kd.ce_teacher_weight=1"]
    config = load_config(path, off)
    assert held_out_loss_problem(config, dataset(tmp_path, [0])) == ""
    assert held_out_loss_problem(load_config(path, [*off, "kd.ce_truth_weight=1"]), truths) == ""
    assert "validations have no loss" in held_out_loss_problem(config, truths)
    for key in ("io.final=best", "train.stop_after_validations=2"):
        with pytest.raises(ConfigError, match=r"data\.validation: .*no held-out loss, which"):
            held_out_loss_problem(load_config(path, [*off, key]), truths)
