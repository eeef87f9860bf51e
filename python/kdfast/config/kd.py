"""Section `kd`: the losses and their weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from kdfast.config.section import Key, Section
from kdfast.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class KDConfig(Section):
    """Absolute weights of the loss terms; each term is a mean over the positions that it counts.

    Examples:
        >>> KDConfig().kl_weight
        0.5
    """

    section: ClassVar[str] = "kd"

    kl_weight: Annotated[
        float, Key("KL(teacher || student), where the teacher's distribution is known.", minimum=0)
    ] = 0.5
    ce_teacher_weight: Annotated[
        float, Key("Cross-entropy on answers that the teacher wrote.", minimum=0)
    ] = 0.3
    ce_truth_weight: Annotated[float, Key("Cross-entropy on ground-truth answers.", minimum=0)] = 0.2
    temperature: Annotated[
        float, Key("Of the KL; a teacher store serves only the temperature it was written at.", above=0)
    ] = 1.0
    name_weight: Annotated[
        float, Key("Added to the cross-entropy's weight 1 on the tokens of a called tool's name.", minimum=0)
    ] = 0.15
    args_weight: Annotated[float, Key("The same on the tokens of a call's arguments.", minimum=0)] = 0.15

    def check(self) -> None:
        """Checks that there is something to learn."""
        if self.kl_weight + self.ce_teacher_weight + self.ce_truth_weight == 0:
            raise ConfigError(
                "kd.kl_weight: must be above 0 unless ce_teacher_weight or ce_truth_weight is, got 0.0"
            )
