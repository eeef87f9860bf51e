"""Section `quant`: training with the rounding of the deployed weights (QAT)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, ClassVar, Literal

from kdfast.config.section import Key, Section, invalid

FormatName = Literal["int8_channel", "q4_0", "q8_0"]

LEARNING_RATES: dict[str, float] = {"int8_channel": 1e-5, "q4_0": 3e-5, "q8_0": 1e-5}
"""The peak of the learning rate under quantisation, where `quant.learning_rate` is null (bench/qat_recovery.py)."""

SELF_KD_WEIGHTS: dict[str, float] = {"int8_channel": 0.0, "q4_0": 1.0, "q8_0": 0.0}
"""What `quant.self_kd_weight` is where it is null: 8 bits lose nothing that a teacher could give back."""

MIN_COSINE: dict[str, float] = {"int8_channel": 0.999, "q4_0": 0.95, "q8_0": 0.999}
"""What `quant.min_cosine` is where it is null."""


@dataclass(frozen=True, kw_only=True)
class QuantConfig(Section):
    """From which step the weights are rounded as they will ship, in which format, and what counts as unstable.

    Examples:
        >>> config = QuantConfig(enabled=True, format="q4_0")
        >>> config.phase_start(1000), config.embedding_format, QuantConfig().embedding_format
        (800, 'q8_0', 'int8_channel')
    """

    section: ClassVar[str] = "quant"

    enabled: Annotated[bool, Key("Whether the run rounds the weights from quant.start_fraction on.")] = False
    format: Annotated[
        FormatName,
        Key(
            "int8 with a scale per output channel (Core ML), or 4 or 8 bits with a scale per 32 weights (llama.cpp)."
        ),
    ] = "int8_channel"
    embeddings: Annotated[
        Literal["same", "q8_0", "int8", "none"] | None,
        Key(
            "The format of embedding and output layer; 'none' = they stay float; null = q8_0 with q4_0, else 'same'."
        ),
    ] = None
    start_fraction: Annotated[
        float,
        Key(
            "Share of the steps before quantisation begins; 0 = the whole run (a finished student).",
            minimum=0,
            below=1,
        ),
    ] = 0.8
    learning_rate: Annotated[
        float | None,
        Key("The peak from there on, absolute; null = 3e-5 for q4_0, else 1e-5.", above=0, maximum=1000),
    ] = None
    warmup_steps: Annotated[int, Key("Steps of linear warm-up from there on.", minimum=0)] = 5
    min_steps: Annotated[
        int,
        Key(
            "A run with fewer steps under quantisation is refused: it would hardly change a code.",
            minimum=1,
            on_resume=True,
        ),
    ] = 20
    freeze_fraction: Annotated[
        float,
        Key(
            "Last share of these steps in which scales stay as they are; only int8_channel.",
            minimum=0,
            maximum=1,
        ),
    ] = 0.2
    self_kd_weight: Annotated[
        float | None,
        Key(
            "The divergence from the float student as it was when quantisation began (one more copy in memory); null = "
            "1 for q4_0, else 0.",
            minimum=0,
            title="divergence from the float student",
        ),
    ] = None
    task_factor: Annotated[
        float,
        Key(
            "What multiplies the run's own losses beside quant.self_kd_weight; 0 = that replaces them.",
            minimum=0,
        ),
    ] = 1.0
    probe_rows: Annotated[
        int, Key("Held-out rows on which a validation compares the student with its float self.", minimum=1)
    ] = 8
    min_cosine: Annotated[
        float | None,
        Key(
            "Lowest cosine of a layer's hidden states with and without rounding; null = 0.999, for q4_0 0.95 unless "
            "the phase begins below that.",
            minimum=-1,
            maximum=1,
        ),
    ] = None
    max_drift_ratio: Annotated[
        float,
        Key(
            "q4_0: 1 - cosine and KL may grow to this multiple of their first values (and to 0.01); twice in a row is "
            "a failure.",
            minimum=1,
        ),
    ] = 1.5
    diverging_ratio: Annotated[
        float,
        Key("A loss above this multiple of its mean over the first tenth of these steps diverges.", above=1),
    ] = 2.0
    diverging_steps: Annotated[int, Key("Such steps in a row that count as a failure.", minimum=1)] = 10
    max_rollbacks: Annotated[
        int,
        Key("Returns to the last good state, at half the rate; after them the run ends in float.", minimum=0),
    ] = 2
    fail_on_unstable: Annotated[
        bool, Key("The run fails (exit code 3) when quantisation had to be given up.", on_resume=True)
    ] = True
    compare_float: Annotated[
        bool,
        Key(
            "Also train the same steps in float and quantise afterwards, for the report (doubles their time).",
            on_resume=True,
        ),
    ] = False

    def check(self) -> None:
        """Checks keys that need each other."""
        if not self.task_factor and not self.self_weight:
            allowed = "above 0 while quant.self_kd_weight is 0 (nothing would be learned)"
            raise invalid("quant.task_factor", allowed, self.task_factor)
        if self.format == "q4_0" and self.min_cosine is not None and self.min_cosine > 0.999:
            raise invalid(
                "quant.min_cosine", "at most 0.999 with q4_0 (about 0.98 is usual)", self.min_cosine
            )

    def unused(self) -> frozenset[str]:
        """The keys that have no effect, given the section's other values."""
        if not self.enabled:
            return frozenset(self.names()) - {"enabled"}
        alone = frozenset() if self.self_weight else frozenset({"task_factor"})
        drift = frozenset() if self.format == "q4_0" else frozenset({"max_drift_ratio"})
        freeze = frozenset() if self._has_int8 else frozenset({"freeze_fraction"})
        return alone | drift | freeze

    @property
    def embedding_format(self) -> FormatName | None:
        """The format of embedding and output layer; None = they stay float."""
        chosen = self.embeddings or ("q8_0" if self.format == "q4_0" else "same")
        formats: dict[str, FormatName | None] = {
            "same": self.format, "q8_0": "q8_0", "int8": "int8_channel", "none": None,
        }  # fmt: skip
        return formats[chosen]

    @property
    def peak(self) -> float:
        """The peak of the learning rate while quantisation is on."""
        return LEARNING_RATES[self.format] if self.learning_rate is None else self.learning_rate

    @property
    def self_weight(self) -> float:
        """The weight of self-distillation, resolved."""
        return SELF_KD_WEIGHTS[self.format] if self.self_kd_weight is None else self.self_kd_weight

    @property
    def lowest_cosine(self) -> float:
        """The limit of `min_cosine`, resolved."""
        return MIN_COSINE[self.format] if self.min_cosine is None else self.min_cosine

    def phase_start(self, total_steps: int) -> int:
        """The first step (0-based) under quantisation: the first with at least `start_fraction` of the steps before it.

        Examples:
            >>> QuantConfig(start_fraction=0.7).phase_start(10), QuantConfig(start_fraction=0.7).phase_start(11)
            (7, 8)
        """
        # 0.7 * 10 is 7.000000000000001 in floating point; the user wrote the decimal 0.7
        return math.ceil(Fraction(repr(self.start_fraction)) * total_steps)

    def freeze_start(self, total_steps: int, phase_start: int) -> int | None:
        """The first step (0-based) with frozen scales; None = they are never frozen.

        Args:
            total_steps: steps of the run.
            phase_start: the first step under quantisation, as the run's checkpoint has it.

        Examples:
            >>> QuantConfig().freeze_start(1000, 800), QuantConfig(format="q4_0").freeze_start(1000, 800)
            (960, None)
        """
        frozen = math.floor(Fraction(repr(self.freeze_fraction)) * max(total_steps - phase_start, 0))
        return total_steps - frozen if frozen and self._has_int8 else None

    @property
    def _has_int8(self) -> bool:
        """Whether some tensors get int8_channel, whose scales can freeze."""
        return "int8_channel" in (self.format, self.embedding_format)

    def check_steps(self, total_steps: int) -> None:
        """Checks that enough steps are left under quantisation.

        Args:
            total_steps: steps of the run.

        Raises:
            ConfigError: fewer than `min_steps` are.
        """
        steps = total_steps - self.phase_start(total_steps)
        if self.enabled and steps < self.min_steps:
            allowed = (
                f"at most the steps under quantisation ({steps} of {total_steps}); raise train.num_steps or lower "
                "quant.start_fraction"
            )
            raise invalid("quant.min_steps", allowed, self.min_steps)
