"""What quantisation costs at the end of a run: the float student, quantised after training, and trained under it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from kdfast.config import Config
from kdfast.data import KDDataset
from kdfast.display import Display
from kdfast.evaluate import EvalPrompt
from kdfast.recipes.train.evaluation import choose_prompts
from kdfast.recipes.train.qat.answers import HeldOut, float_bytes
from kdfast.recipes.train.qat.difference import QAT, differences, sentences
from kdfast.recipes.train.qat.measure import Arm, Bench
from kdfast.recipes.train.step import Runner

SCHEMA_VERSION = "1.0"
QUANTIZATION_KIND = "kdfast.quantization"
REFERENCE = "float"
"""The name of the float student's row."""


def compare_arms(
    arms: Sequence[Arm],
    reference: nn.Module,
    *,
    runner: Runner,
    dataset: KDDataset | None,
    config: Config,
    display: Display,
    step: int,
) -> dict[str, Any]:
    """Measures each arm, and compares it with the float student that it was made of. Called on the first rank only.

    Args:
        arms: the quantised students, with names of their own.
        reference: the float student when quantisation began, frozen, on the device.
        runner: the run's; its losses give the held-out loss.
        dataset: the held-out records; None = there are none.
        config: the run's: how many rows, which prompts, how long answers may be.
        display: shows progress.
        step: the step that the student's weights are of.

    Returns:
        the comparison as strict JSON values, with the float student as the first of its `arms`. What could not be
        measured is absent; an arm's `notes` say why where that is no matter of the data.

    Raises:
        DataError: a held-out row, or a record's tools, cannot be read.
    """
    bench = Bench(
        reference=reference,
        runner=runner,
        config=config,
        held_out=_held_out(dataset, config),
        prompts=_prompts(dataset, config),
        display=display,
    )
    display.console.print("[bold]quantisation[/bold]: the arms on held-out answers and prompts")
    start = Arm(
        name=REFERENCE, title="float, at the start", load=lambda: reference, bytes=float_bytes(reference)
    )
    rows, sums = [], {}
    for number, arm in enumerate((start, *arms), 1):
        row, measured = bench.measure(arm, f"arm {number}/{len(arms) + 1}")
        rows.append(row)
        if measured is not None and arm is not start:
            sums[arm.name] = measured
    found = differences(sums)
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": QUANTIZATION_KIND,
        "step": step,
        "format": config.quant.format,
        "embeddings": config.quant.embedding_format or "float",
        "status": "kept",
        "reasons": [],
        "arms": rows,
        "differences": found,
        "judgement": sentences(rows, found) or _not_judged(rows),
    }


def mark_failed(document: dict[str, Any], reasons: Sequence[str]) -> dict[str, Any]:
    """The same comparison of a run whose quantisation was given up.

    Args:
        document: what `compare_arms` gave, without an arm `qat`.
        reasons: why, in words.
    """
    why = "; ".join(reasons) or "no reason is known"
    loud = (
        f"QAT FAILED and was given up: {why}. The student is the float one, nothing was quantised in training"
    )
    kept = [line for line in document["judgement"] if line not in _not_judged(document["arms"])]
    return document | {"status": "failed", "reasons": list(reasons), "judgement": [loud, *kept]}


def _not_judged(rows: Sequence[dict[str, Any]]) -> list[str]:
    if all(row["name"] != QAT for row in rows):
        return ["there is no student that was trained under quantisation to compare"]
    return ["QAT is not compared with post-training: no token of a held-out answer was measured in both"]


def _held_out(dataset: KDDataset | None, config: Config) -> HeldOut | None:
    if dataset is None or not len(dataset):
        return None
    return HeldOut.of(dataset, config.train.validation_rows, config.train.micro_batch_size)


def _prompts(dataset: KDDataset | None, config: Config) -> list[EvalPrompt]:
    train = config.train
    if dataset is None or not train.eval_prompts + train.eval_irrelevance_prompts:
        return []
    return choose_prompts(dataset, train.eval_prompts, train.eval_irrelevance_prompts)
