"""Section `speed`: what a validation measures of the student's speed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from kdfast.config.section import Key, Section


@dataclass(frozen=True, kw_only=True)
class SpeedConfig(Section):
    """Held-out prompts that the student answers inside validations, one by one, while the time is measured.

    Examples:
        >>> SpeedConfig(every_validations=2).due(step=200, num_steps=1000, validate_every_steps=100)
        True
    """

    section: ClassVar[str] = "speed"

    every_validations: Annotated[
        int,
        Key(
            "Measure in every N-th validation, and in the first and the last; 0 = never.",
            minimum=0,
            on_resume=True,
        ),
    ] = 1
    prompts: Annotated[
        int,
        Key(
            "Held-out prompts to answer, from all shapes in turn, those that need a call first.",
            minimum=1,
            on_resume=True,
        ),
    ] = 4
    max_new_tokens: Annotated[
        int | None,
        Key("An answer is cut after N tokens; null = train.eval_max_new_tokens.", minimum=1, on_resume=True),
    ] = None
    warmup: Annotated[int, Key("Generations before the first measured one.", minimum=0, on_resume=True)] = 1

    def due(self, *, step: int, num_steps: int, validate_every_steps: int) -> bool:
        """Whether the validation at a step measures. A resumed run measures at the same steps."""
        if not self.every_validations:
            return False
        if step in (0, num_steps) or not validate_every_steps:
            return True
        return step // validate_every_steps % self.every_validations == 0
