"""Section `train`: the loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from kdfast.config.section import Key, Section, invalid


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Section):
    """Steps, batch, precision, and how often to validate, save and report. A step is one optimiser update.

    Examples:
        >>> TrainConfig(micro_batch_size=4, gradient_accumulation_steps=2).batch_size
        8
    """

    section: ClassVar[str] = "train"

    num_steps: Annotated[int, Key("Optimiser updates in the run.", minimum=1, on_resume=True)] = 1000
    micro_batch_size: Annotated[int, Key("Rows in one forward pass.", minimum=1, maximum=2**20)] = 4
    gradient_accumulation_steps: Annotated[
        int,
        Key(
            "Forward passes a step, over all ranks together: 8x1, 4x2, 1x8 and 2 ranks give the same step.",
            minimum=1,
            maximum=2**20,
        ),
    ] = 1
    seed: Annotated[int, Key("Of weights, row order and shapes.", minimum=0, maximum=2**63 - 1)] = 0
    device: Annotated[
        Literal["auto", "cpu", "cuda", "mps"],
        Key("Where the student is trained; 'auto' = cuda, else mps, else cpu."),
    ] = "auto"
    dtype: Annotated[
        Literal["fp32", "bf16"],
        Key("Numbers of the forward pass; 'bf16' is autocast, the weights stay fp32."),
    ] = "fp32"
    threads: Annotated[
        int,
        Key(
            "torch's CPU threads; 0 = torch's default. Bit-equal resume needs the same number.",
            minimum=0,
            maximum=1024,
        ),
    ] = 0
    validate_every_steps: Annotated[
        int, Key("Steps between validations; 0 = only before and after training.", minimum=0, on_resume=True)
    ] = 100
    stop_after_validations: Annotated[
        int,
        Key(
            "Stop when this many validations in a row bring no lower held-out loss; 0 = train to the last step.",
            minimum=0,
            on_resume=True,
        ),
    ] = 0
    validation_rows: Annotated[
        int, Key("Held-out rows a validation reads; 0 = all.", minimum=0, on_resume=True)
    ] = 0
    checkpoint_every_steps: Annotated[
        int,
        Key("Steps between checkpoints; 0 = only at the end and when stopped.", minimum=0, on_resume=True),
    ] = 100
    keep_last: Annotated[
        int, Key("Newest checkpoints to keep; the best one is kept besides.", minimum=1, on_resume=True)
    ] = 2
    log_every_steps: Annotated[
        int, Key("Steps between lines of metrics.jsonl.", minimum=1, on_resume=True)
    ] = 1
    eval_prompts: Annotated[
        int,
        Key(
            "Held-out prompts that need a tool, answered before and after training; 0 = none.",
            minimum=0,
            on_resume=True,
        ),
    ] = 0
    eval_irrelevance_prompts: Annotated[
        int, Key("The same for prompts that no tool fits (false calls); 0 = none.", minimum=0, on_resume=True)
    ] = 0
    eval_max_new_tokens: Annotated[
        int, Key("Longest answer in the evaluation, in tokens.", minimum=1, on_resume=True)
    ] = 128
    min_valid_calls_fraction: Annotated[
        float,
        Key(
            "The run fails (exit code 3) when a smaller share of eval_prompts gets a schema-valid call.",
            minimum=0,
            maximum=1,
            on_resume=True,
        ),
    ] = 0.0
    min_exact_calls_fraction: Annotated[
        float,
        Key(
            "The same for calls that are exactly right, by the data's own rules of matching.",
            minimum=0,
            maximum=1,
            on_resume=True,
        ),
    ] = 0.0
    max_false_calls_fraction: Annotated[
        float,
        Key(
            "The run fails (exit code 3) when a larger share of eval_irrelevance_prompts gets a call.",
            minimum=0,
            maximum=1,
            on_resume=True,
        ),
    ] = 1.0
    fail_on_gate: Annotated[
        bool,
        Key("The run fails (exit code 3) when a gate of gates.enabled fails at its end.", on_resume=True),
    ] = False

    @property
    def batch_size(self) -> int:
        """Rows of one step, over all forward passes and ranks together."""
        return self.micro_batch_size * self.gradient_accumulation_steps

    def check(self) -> None:
        """Checks that demanded shares of calls are measured at all."""
        for name in ("min_valid_calls_fraction", "min_exact_calls_fraction"):
            if getattr(self, name) > 0 and self.eval_prompts == 0:
                allowed = "0 unless train.eval_prompts is above 0 (nothing would be measured)"
                raise invalid(f"train.{name}", allowed, getattr(self, name))
        if self.max_false_calls_fraction < 1 and self.eval_irrelevance_prompts == 0:
            allowed = "1 unless train.eval_irrelevance_prompts is above 0 (nothing would be measured)"
            raise invalid("train.max_false_calls_fraction", allowed, self.max_false_calls_fraction)
