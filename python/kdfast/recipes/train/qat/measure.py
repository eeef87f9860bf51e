"""Measures one quantised student: held-out loss, answer tokens beside the float student's, calls by generation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from kdfast.config import Config
from kdfast.display import Display
from kdfast.distributed.ranks import Ranks
from kdfast.errors import DataError, KdfastError
from kdfast.evaluate import Decoding, EvalPrompt, evaluate
from kdfast.recipes.train.qat.answers import MEASURES, AnswerSums, HeldOut, measure_answers
from kdfast.recipes.train.qat.difference import MEASURE_TITLES
from kdfast.recipes.train.step import Runner, StudentLoss
from kdfast.recipes.train.validate import validate

CALLS = ("schema_valid", "exact_match", "false_calls")
"""The shares of an evaluation by generation that are measured."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A quantised student.

    Attributes:
        name: its name, such as `start, post-training` or `qat`.
        title: its name for people.
        load: gives the model as it ships: plain layers, weights q * s in float32, on the device. Arms are loaded one
            after the other, and nothing keeps one when the next is loaded.
        bytes: bytes of its weights as stored: quantised tensors and what stays float.
    """

    name: str
    title: str
    load: Callable[[], nn.Module]
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Bench:
    """All that arms are measured with.

    Attributes:
        reference: the float student that they are compared with.
        runner: the run's; its losses give the held-out loss.
        config: the run's.
        held_out: the held-out rows; None = there are none.
        prompts: those that are answered by generation.
        display: shows progress.
    """

    reference: nn.Module
    runner: Runner
    config: Config
    held_out: HeldOut | None
    prompts: list[EvalPrompt]
    display: Display

    def measure(self, arm: Arm, what: str) -> tuple[dict[str, Any], AnswerSums | None]:
        """Measures an arm. Nothing keeps its model.

        Args:
            arm: the arm; one whose model is the reference itself is compared with nothing.
            what: the label of the bar that shows progress.

        Returns:
            its numbers as JSON values, and its sums over answer tokens (None = there are no held-out rows).

        Raises:
            DataError: a held-out row, or a record's tools, cannot be read.
        """
        row: dict[str, Any] = {"name": arm.name, "title": arm.title, "bytes": arm.bytes}
        held_out = self.held_out
        if held_out is None:
            return row, None
        model, rows = arm.load(), len(held_out.chosen)
        with self.display.working(what, 2 * rows + len(self.prompts)) as on_progress:
            done = 0

            def advance(more: int) -> None:
                nonlocal done
                done += more
                on_progress(done, arm.title)

            reference = None if model is self.reference else self.reference
            sums = measure_answers(model, reference, held_out, self.runner.device, advance)
            values, notes = _answers(sums)
            loss, why = self._loss(model, held_out, advance)
            row, notes = row | values | loss, notes + why
            if sums.non_finite:
                notes.append("no answers were generated: its logits are not all finite")
            elif self.prompts:
                row["calls"] = self._calls(
                    model, held_out, lambda ended, _: on_progress(2 * rows + ended, arm.title)
                )
        return row | ({"notes": notes} if notes else {}), sums

    def _loss(
        self, model: nn.Module, held_out: HeldOut, on_progress: Callable[[int], None]
    ) -> tuple[dict[str, float], list[str]]:
        """The held-out loss, by the run's own terms."""
        bare, train = self.runner.bare, self.config.train
        with _in_place_of_the_student(bare, model):
            try:
                values = validate(
                    replace(self.runner, model=bare, ranks=Ranks()),
                    held_out.dataset,
                    rows=train.validation_rows,
                    micro_batch_size=train.micro_batch_size,
                    on_progress=on_progress,
                )
            except DataError:
                raise
            except KdfastError as error:
                return {}, [f"no held-out loss: {error}"]
        if "loss" not in values:
            return {}, ["no held-out loss: no enabled loss term acts on a held-out row"]
        if not math.isfinite(values["loss"]):
            return {}, ["no held-out loss: it is not a finite number"]
        return {"loss": values["loss"]}, []

    def _calls(
        self, model: nn.Module, held_out: HeldOut, on_progress: Callable[[int, int], None]
    ) -> dict[str, Any]:
        """The shares of valid, exact and false calls, by generation; one of no prompt is left out."""
        dataset = held_out.dataset
        ends = dataset.turn_end_ids  # the last one is a saved student's end of sequence
        limit = self.config.train.eval_max_new_tokens
        decoding = Decoding(eos_ids=ends[-1:], pad_id=ends[-1], max_new_tokens=limit)
        table = evaluate(
            model, self.prompts, dataset.tokenizer.decode, decoding, on_progress, formats=dataset.formats
        ).table
        return {name: table[name].to_json() for name in CALLS if table[name].total}


@contextmanager
def _in_place_of_the_student(loss: StudentLoss, model: nn.Module) -> Iterator[None]:
    """Another student under the run's losses: their learned terms and their teacher stay."""
    own, training = loss.student, model.training
    loss.student = model
    try:
        yield
    finally:
        loss.student = own
        model.train(training)  # `validate` gives it the mode of the run's student


def _answers(sums: AnswerSums) -> tuple[dict[str, Any], list[str]]:
    """The means over answer tokens, and why some are not there."""
    values: dict[str, Any] = {"records": sums.records, "positions": sums.count("positions")}
    notes = []
    if sums.non_finite:
        notes.append(
            f"logits are NaN or infinite at {sums.non_finite} of {values['positions']} answer positions"
        )
    for name, count in MEASURES.items():
        mean = sums.mean(name) if name != "kl" or sums.compared else None
        if mean is None:
            continue
        if not math.isfinite(mean):
            notes.append(f"{MEASURE_TITLES[name]} is not a finite number")
            continue
        values |= {name: mean, count: sums.count(count)}
    if sums.compared and values["positions"] and not sums.non_finite:
        same = sums.count("same")
        values["top1"] = {"count": same, "total": values["positions"], "fraction": same / values["positions"]}
    if sums.compared and sums.cosines:
        values["cosines"] = sums.mean_cosines()
        if None in values["cosines"]:
            notes.append("hidden states are not all finite: some layers have no cosine")
    return values, notes
