"""Section `kd`: the losses and their weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from kdfast.config.section import Key, Section, invalid
from kdfast.errors import ConfigError

_WEIGHTS = (
    "kl_weight",
    "sampled_kl_weight",
    "ce_teacher_weight",
    "ce_truth_weight",
)


@dataclass(frozen=True, kw_only=True)
class KDConfig(Section):
    """Absolute weights of the loss terms; each term is a mean over the positions (or rows) that it counts.

    Examples:
        >>> KDConfig().kl_weight
        0.5
    """

    section: ClassVar[str] = "kd"

    kl_weight: Annotated[
        float,
        Key(
            "The divergence from the teacher, where its distribution is known.",
            minimum=0,
            title="divergence from the teacher",
        ),
    ] = 0.5
    divergence: Annotated[
        Literal["forward_kl", "reverse_kl", "generalized_jsd", "skew_kl", "tvd"],
        Key(
            "Which one: KL(teacher || student), its reverse, a member between or beside them, or total variation."
        ),
    ] = "forward_kl"
    jsd_beta: Annotated[
        float, Key("The teacher's share of generalized_jsd's mixture.", minimum=0, maximum=1)
    ] = 0.5
    skew_alpha: Annotated[float, Key("The teacher's share of skew_kl's mixture.", minimum=0, below=1)] = 0.1
    sampled_kl_weight: Annotated[
        float,
        Key(
            "Cross-entropy on ids drawn from the teacher (teacher.samples): unbiased, for 10^4 rows and more.",
            minimum=0,
            title="cross-entropy on the teacher's samples",
        ),
    ] = 0.0
    ce_teacher_weight: Annotated[
        float,
        Key(
            "Cross-entropy on answers that the teacher wrote.",
            minimum=0,
            title="cross-entropy, teacher's answers",
        ),
    ] = 0.3
    ce_truth_weight: Annotated[
        float, Key("Cross-entropy on ground-truth answers.", minimum=0, title="cross-entropy, ground truth")
    ] = 0.2
    kl_final_weight: Annotated[
        float | None,
        Key("kl_weight at the last step, reached in a straight line; null = constant.", minimum=0),
    ] = None
    ce_teacher_final_weight: Annotated[float | None, Key("The same of ce_teacher_weight.", minimum=0)] = None
    ce_truth_final_weight: Annotated[float | None, Key("The same of ce_truth_weight.", minimum=0)] = None
    temperature: Annotated[
        float,
        Key("Of the divergence; a teacher store serves only the temperature it was written at.", above=0),
    ] = 1.0
    name_weight: Annotated[
        float, Key("Added to the cross-entropy's weight 1 on the tokens of a called tool's name.", minimum=0)
    ] = 0.15
    args_weight: Annotated[float, Key("The same on the tokens of a call's arguments.", minimum=0)] = 0.15

    length_weight: Annotated[
        float,
        Key(
            "Of the length-aware loss: the student's expected answer length above the teacher's. 0: with ends of turn "
            "among the labels, cross-entropy does it; 0.05 to 0.5 where these are rare (docs/losses.md).",
            minimum=0,
            title="length-aware loss",
        ),
    ] = 0.0
    length_form: Annotated[
        Literal["log", "ratio", "quantile"],
        Key("How the excess is measured; 'quantile' for a student that hardly ever stops."),
    ] = "log"
    length_slope: Annotated[float, Key("Multiplies the excess.", minimum=0)] = 1.0
    length_hinge: Annotated[float, Key("Relative excess that costs nothing.", minimum=0)] = 0.15
    length_quantile: Annotated[
        float, Key("Share of answers that 'quantile' wants within the hinge.", above=0, maximum=1)
    ] = 0.9
    length_aggregate: Annotated[
        Literal["ema", "row"],
        Key("Whether the hinge is opened by an average over steps, or row by row (fixed-format answers)."),
    ] = "ema"
    length_ema_decay: Annotated[float, Key("Of that average, per step.", minimum=0, below=1)] = 0.9
    max_new_tokens: Annotated[
        int,
        Key(
            "Where the deployed student's answers are cut, in tokens: bounds the expected length.",
            minimum=1,
            maximum=2**31 - 1,
        ),
    ] = 256
    early_tool_ce_weight: Annotated[
        float,
        Key(
            "Cross-entropy on the first data.prefix_tokens tokens of a due call. 0: plain cross-entropy has it; about "
            "0.1 where the teacher rambles before its calls (docs/losses.md).",
            minimum=0,
            title="early call: cross-entropy",
        ),
    ] = 0.0
    early_tool_prior_weight: Annotated[
        float,
        Key(
            "-log of the mass of ids that open a call, at the answer's start, where a call is due but not given; with "
            "early_tool_ce_weight.",
            minimum=0,
            title="early call: opening prior",
        ),
    ] = 0.0
    early_tool_preamble_weight: Annotated[
        float,
        Key(
            "The expected number of tokens before the call, above max_preamble_tokens.",
            minimum=0,
            title="early call: preamble",
        ),
    ] = 0.0
    max_preamble_tokens: Annotated[float, Key("Tokens before a call that cost nothing.", minimum=0)] = 0.0
    early_tool_negative_weight: Annotated[
        float,
        Key(
            "-log(1 - mass of ids that open a call), at the answer's start, where no call is due.",
            minimum=0,
            title="early call: no call due",
        ),
    ] = 0.0
    early_tool_warmup_steps: Annotated[
        int | None,
        Key("Steps over which the early-tool weights grow from 0; null = optimizer.warmup_steps.", minimum=0),
    ] = None

    hidden_state_weight: Annotated[
        float,
        Key(
            "The distance between hidden states of the student and of a teacher that runs beside it (teacher.live).",
            minimum=0,
            title="hidden states against the teacher's",
        ),
    ] = 0.0
    hidden_state_form: Annotated[
        Literal["cosine", "mse"],
        Key(
            "1 - cosine, or the mean square of the difference in units of the teacher's size at that position."
        ),
    ] = "cosine"
    hidden_state_student_layers: Annotated[
        tuple[int, ...] | None,
        Key(
            "The student's layers: 0 the embeddings, i after block i, -1 after the last norm; null = all of a student "
            "made of the teacher's layers, else the last.",
            minimum=-1,
        ),
    ] = None
    hidden_state_teacher_layers: Annotated[
        tuple[int, ...] | None,
        Key(
            "The teacher's, one for each of the student's; null = what the student's layer did in the teacher: its "
            "output just before the next layer that was kept, last to last.",
            minimum=-1,
        ),
    ] = None
    prompt_kl_weight: Annotated[
        float,
        Key(
            "The divergence from a teacher that runs beside the student (teacher.live) on tokens that are not learned, "
            "such as the prompt's; for a student that was cut or quantised.",
            minimum=0,
            title="divergence from the teacher, prompt",
        ),
    ] = 0.0

    chunk_rows: Annotated[int, Key("Rows of logits that exist at once.", minimum=1)] = 256
    on_nan: Annotated[
        Literal["raise", "skip_row"],
        Key("A row whose loss is not finite stops the run, or is left out and counted (skipped_rows)."),
    ] = "raise"

    def check(self) -> None:
        """Checks that there is something to learn."""
        if not any(getattr(self, name) for name in _WEIGHTS):
            raise ConfigError(
                "kd.kl_weight: must be above 0 unless ce_teacher_weight, ce_truth_weight or sampled_kl_weight is, "
                "got 0.0"
            )
        for name in ("kl", "ce_teacher", "ce_truth"):
            final = getattr(self, f"{name}_final_weight")
            if final is not None and getattr(self, f"{name}_weight") == 0:
                raise invalid(f"kd.{name}_final_weight", f"null while kd.{name}_weight is 0", final)
        self._check_layers()

    def _check_layers(self) -> None:
        ours, theirs = self.hidden_state_student_layers, self.hidden_state_teacher_layers
        if ours is None or theirs is None:
            if ours is not theirs:
                allowed = "null where kd.hidden_state_student_layers is, and else a list"
                raise invalid("kd.hidden_state_teacher_layers", allowed, theirs)
        elif not ours or len(ours) != len(theirs):
            allowed = f"as many layers as kd.hidden_state_student_layers ({len(ours)}), at least one"
            raise invalid("kd.hidden_state_teacher_layers", allowed, list(theirs))

    def unused(self) -> frozenset[str]:
        """The keys of the hidden states, while their weight is 0."""
        if self.hidden_state_weight:
            return frozenset()
        return frozenset({"hidden_state_form", "hidden_state_student_layers", "hidden_state_teacher_layers"})

    def reads_store(self, *, live_teacher: bool) -> bool:
        """Whether a term takes its numbers from the teacher store.

        Args:
            live_teacher: whether a teacher runs beside the student; then the divergence is from that one.

        Examples:
            >>> KDConfig().reads_store(live_teacher=False), KDConfig().reads_store(live_teacher=True)
            (True, False)
        """
        return self.sampled_kl_weight > 0 or (self.kl_weight > 0 and not live_teacher)

    def check_live_teacher(self, live: bool) -> None:
        """Checks that the terms have the live teacher that they need, and that a live teacher has a term.

        Args:
            live: whether a teacher runs beside the student (`teacher.live`).

        Raises:
            ConfigError: they do not.
        """
        for name in ("hidden_state_weight", "prompt_kl_weight"):
            if getattr(self, name) and not live:
                raise invalid(
                    f"kd.{name}",
                    "0 without a teacher beside the student (set teacher.live: true)",
                    getattr(self, name),
                )
        if live and not (self.kl_weight or self.prompt_kl_weight or self.hidden_state_weight):
            allowed = "false while kd.kl_weight, kd.prompt_kl_weight and kd.hidden_state_weight are 0"
            raise invalid("teacher.live", allowed, True)
