"""Quantised students compared with the float one: against twins that read row by row, in float64, with all logits."""

from __future__ import annotations

import copy
import json
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from quant_arms import Setting, arm, post_training, setting

from kdfast.config import QuantConfig
from kdfast.data import collate_kd_batch
from kdfast.recipes.train.evaluation import evaluate_once
from kdfast.recipes.train.qat.answers import HeldOut, measure_answers
from kdfast.recipes.train.qat.arms import compare_arms, mark_failed
from kdfast.recipes.train.qat.measure import Arm
from kdfast.recipes.train.validate import validate

Q4 = QuantConfig(format="q4_0")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return setting(tmp_path_factory.mktemp("arms"))


@pytest.fixture(scope="module")
def rounded(made: Setting) -> Any:
    return post_training(made.reference, Q4)


@pytest.fixture(scope="module")
def document(made: Setting, rounded: Any) -> dict[str, Any]:
    """The float student, one quantised after training, and a QAT that is the float student itself, copied."""
    arms = [arm("start, post-training", rounded), arm("qat", copy.deepcopy(made.reference))]
    return compare_arms(arms, made.reference, **made.given())


def teacher_forced(made: Setting, rows: int = 0) -> dict[str, Any]:
    """The arguments of a comparison that generates nothing, and so takes less time."""
    train = replace(made.config.train, eval_prompts=0, eval_irrelevance_prompts=0, validation_rows=rows)
    return made.given(config=replace(made.config, train=train))


def rows_of(document: dict[str, Any]) -> dict[str, Any]:
    return {row["name"]: row for row in document["arms"]}


def read_slowly(model: Any, reference: Any, setting: Setting) -> dict[str, list[Any]]:
    """Every answer token's numbers, one row at a time, from whole logits in float64."""
    own, other = copy.deepcopy(model).double(), copy.deepcopy(reference).double()
    found: dict[str, list[Any]] = {"kl": [], "same": [], "names": [], "args": [], "cosines": []}
    for index in range(len(setting.dataset)):
        row = setting.dataset[index]
        outputs = [
            one(input_ids=row["input_ids"][None], output_hidden_states=True, use_cache=False)
            for one in (own, other)
        ]
        for t in range(1, len(row["input_ids"])):
            if int(row["labels"][t]) == -100:
                continue
            q, p = (output.logits[0, t].softmax(0) for output in outputs)
            found["kl"].append(float((p * (p / q).log()).sum()))
            found["same"].append(int(p.argmax()) == int(q.argmax()))
            nll = -float(q[row["labels"][t]].log())
            for name in ("names", "args"):
                if row[f"tool_{name.removesuffix('s') if name == 'names' else name}_mask"][t]:
                    found[name].append(nll)
            found["cosines"].append(
                [
                    float(torch.nn.functional.cosine_similarity(a[0, t], b[0, t], dim=0))
                    for a, b in zip(*(output.hidden_states for output in outputs), strict=True)
                ]
            )
    return found


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_the_numbers_are_those_of_a_slow_twin(made: Setting, rounded: Any, document: dict[str, Any]) -> None:
    row, slow = rows_of(document)["start, post-training"], read_slowly(rounded, made.reference, made)
    assert row["kl"] == pytest.approx(mean(slow["kl"]), rel=1e-4)
    assert row["kl"] > 1e-3
    assert row["positions"] == len(slow["kl"])
    assert row["top1"]["count"] == sum(slow["same"]) < row["top1"]["total"]
    assert (row["names"], row["args"]) == (len(slow["names"]), len(slow["args"]))
    assert min(row["names"], row["args"]) > 0
    assert row["nll_names"] == pytest.approx(mean(slow["names"]), rel=1e-5)
    assert row["nll_args"] == pytest.approx(mean(slow["args"]), rel=1e-5)
    layers = [mean(list(layer)) for layer in zip(*slow["cosines"], strict=True)]
    assert row["cosines"] == pytest.approx(layers, abs=1e-6)
    assert len(layers) == made.reference.config.num_hidden_layers + 1


def test_how_rows_are_split_into_batches_does_not_matter(made: Setting, rounded: Any) -> None:
    def sums(size: int) -> dict[str, list[float]]:
        held_out = HeldOut.of(made.dataset, 5, size)
        found = measure_answers(rounded, made.reference, held_out, torch.device("cpu"), lambda _: None)
        return {name: values.tolist() for name, values in found.sums.items()}

    one, five = sums(1), sums(5)
    for name, values in one.items():
        assert values == pytest.approx(five[name], rel=1e-4, abs=1e-6)


def test_the_two_rows_of_a_record_count_as_one_observation(made: Setting) -> None:
    records = HeldOut.of(made.dataset, 0, 4).records
    places = [made.dataset.place(int(row)) for row in made.dataset.rows]
    assert len(records) == len(made.dataset) > len(set(places)) == max(records) + 1
    assert all(
        (records[a] == records[b]) == (places[a] == places[b])
        for a in range(len(places))
        for b in range(len(places))
    )


def test_the_held_out_loss_and_the_calls_are_the_run_s_own(
    made: Setting, rounded: Any, document: dict[str, Any], tmp_path: Path
) -> None:
    student = made.runner.bare.student
    assert student.training  # the run's own student is back, in its own mode
    assert student is not rounded
    assert not made.reference.training
    row, loss = rows_of(document)["start, post-training"], made.runner.bare
    loss.student = rounded
    try:
        values = validate(
            made.runner,
            made.dataset,
            rows=made.config.train.validation_rows,
            micro_batch_size=made.config.train.micro_batch_size,
            on_progress=lambda _: None,
        )
    finally:
        loss.student = student
    assert row["loss"] == values["loss"]
    saved = evaluate_once(tmp_path / "e.json", rounded, made.dataset, made.config, made.display, 8)
    assert row["calls"] == {
        name: saved["table"][name] for name in ("schema_valid", "exact_match", "false_calls")
    }
    assert (row["calls"]["exact_match"]["total"], row["calls"]["false_calls"]["total"]) == (3, 2)


def test_a_copy_of_the_float_student_is_at_no_distance_from_it(document: dict[str, Any]) -> None:
    start, qat = rows_of(document)["float"], rows_of(document)["qat"]
    assert (qat["kl"], qat["top1"]["fraction"], set(qat["cosines"])) == (0.0, 1.0, {1.0})
    same = ("loss", "nll_names", "nll_args", "calls", "positions", "records")
    assert [start[name] for name in same] == [qat[name] for name in same]
    assert not {"kl", "top1", "cosines", "notes"} & start.keys()
    assert [row["name"] for row in document["arms"]] == ["float", "start, post-training", "qat"]


def test_the_paired_difference_has_an_interval_and_a_sentence(document: dict[str, Any]) -> None:
    [pair] = document["differences"]
    assert pair["against"] == "start, post-training"
    rows = rows_of(document)
    for measure in ("kl", "nll_names", "nll_args"):
        one = pair[measure]
        difference = rows["qat"][measure] - rows["start, post-training"][measure]
        assert one["value"] == pytest.approx(difference, rel=1e-9, abs=1e-9)
        assert one["low"] <= one["value"] <= one["high"]
    assert pair["kl"]["records"] == rows["qat"]["records"]
    assert pair["nll_args"]["records"] < pair["kl"]["records"]  # some records need no call
    assert pair["kl"]["says"] == "lower"
    assert document["judgement"][0].startswith("KL to the float student: QAT 0 against 0.")
    assert document["judgement"][0].endswith(": QAT is closer to it")


def test_two_equal_arms_do_not_differ(made: Setting, rounded: Any) -> None:
    arms = [arm("start, post-training", rounded), arm("qat", copy.deepcopy(rounded))]
    made_anew = compare_arms(arms, made.reference, **teacher_forced(made))
    assert not [row for row in made_anew["arms"] if "calls" in row]
    [pair] = made_anew["differences"]
    for measure in ("kl", "nll_names", "nll_args"):
        assert [pair[measure][key] for key in ("value", "low", "high", "says")] == [0, 0, 0, "not_shown"]
    records = pair["kl"]["records"]
    assert made_anew["judgement"][0].endswith(
        f"(START, POST-TRAINING), +0 [+0, +0]: no difference that these {records} records can show"
    )


def test_few_records_judge_nothing(made: Setting, rounded: Any) -> None:
    arms = [arm("start, post-training", rounded), arm("qat", copy.deepcopy(made.reference))]
    found = compare_arms(arms, made.reference, **teacher_forced(made, 3))
    assert found["differences"][0]["kl"]["says"] == "too_few"
    assert "too few records to judge" in found["judgement"][0]


def test_not_a_number_is_absent_and_said(made: Setting, rounded: Any) -> None:
    broken = copy.deepcopy(made.reference)
    with torch.no_grad():
        broken.model.layers[1].mlp.down_proj.weight[3, 5] = float("nan")
    arms = [arm("start, post-training", rounded), arm("qat", broken)]
    found = compare_arms(arms, made.reference, **made.given())
    json.dumps(found, allow_nan=False)
    row = rows_of(found)["qat"]
    assert not {"kl", "top1", "nll_names", "nll_args", "loss", "calls"} & row.keys()
    assert [cosine is None for cosine in row["cosines"]] == [False, False, True]
    told = "; ".join(row["notes"])
    assert f"NaN or infinite at {row['positions']} of {row['positions']} answer positions" in told
    assert "no held-out loss: " in told
    assert "no answers were generated" in told
    assert found["differences"] == [{"against": "start, post-training"}]
    assert found["judgement"] == [
        "QAT is not compared with post-training: no token of a held-out answer was measured in both"
    ]


def test_without_held_out_data_only_sizes_are_known(made: Setting, rounded: Any) -> None:
    arms = [arm("start, post-training", rounded), arm("qat", rounded)]
    found = compare_arms(arms, made.reference, **made.given(dataset=None))
    weights = sum(p.numel() for p in made.reference.parameters())
    assert [row["bytes"] for row in found["arms"]] == [4 * weights, 1000, 1000]
    assert all(row.keys() == {"name", "title", "bytes"} for row in found["arms"])


def test_an_arm_is_gone_when_the_next_is_loaded(made: Setting) -> None:
    loaded: list[weakref.ref[Any]] = []

    def load() -> Any:
        assert not [one for one in loaded if one() is not None]
        model = copy.deepcopy(made.reference)
        loaded.append(weakref.ref(model))
        return model

    arms = [Arm(name=name, title=name, load=load, bytes=1) for name in ("a", "b")]
    compare_arms(arms, made.reference, **teacher_forced(made, 2))
    assert len(loaded) == 2


def test_quantisation_that_was_given_up_says_so_first(made: Setting, rounded: Any) -> None:
    found = compare_arms([arm("start, post-training", rounded)], made.reference, **teacher_forced(made, 2))
    assert found["judgement"] == ["there is no student that was trained under quantisation to compare"]
    failed = mark_failed(found, ["step 9: cosine 0.91", "step 11: cosine 0.90"])
    assert (failed["status"], failed["reasons"]) == (
        "failed",
        ["step 9: cosine 0.91", "step 11: cosine 0.90"],
    )
    assert failed["judgement"] == [
        "QAT FAILED and was given up: step 9: cosine 0.91; step 11: cosine 0.90. The student is the float one, "
        "nothing was quantised in training"
    ]
    assert found["status"] == "kept"


def test_the_batch_s_masks_are_those_of_the_labels(made: Setting) -> None:
    """A token of a name is counted where it is predicted: at the position before it."""
    batch = collate_kd_batch(made.dataset.__getitems__(list(range(len(made.dataset)))))
    names = batch["labels"][batch["tool_name_mask"]].tolist()
    assert "get_weather" in made.dataset.tokenizer.decode(names)
