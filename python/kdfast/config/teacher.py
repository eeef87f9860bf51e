"""Section `teacher`: whose log-probabilities the student learns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from kdfast.config.section import Key, Section, invalid
from kdfast.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TeacherConfig(Section):
    """A local teacher and the store of its log-probabilities; both are optional.

    Examples:
        >>> TeacherConfig().model is None
        True
        >>> TeacherConfig(model="some/model")
        Traceback (most recent call last):
        ...
        kdfast.errors.ConfigError: teacher.store: required beside teacher.model; set it to the directory that
        keeps its log-probabilities
    """

    section: ClassVar[str] = "teacher"

    model: Annotated[
        Path | None, Key("A Hugging Face causal LM's directory or a .gguf file; null = none.", on_resume=True)
    ] = None
    store: Annotated[
        Path | None,
        Key("Directory of the teacher store: written by `kdfast teach`, read by training.", on_resume=True),
    ] = None
    k: Annotated[
        int, Key("Log-probabilities kept a token; 6 bytes each and 4 for the rest of the mass.", minimum=1)
    ] = 32
    samples: Annotated[
        int,
        Key(
            "Ids drawn a token from the teacher's full distribution, for random-sampling KD, 6 bytes each; 0 = none."
            " They pay in long runs on 10^4 rows and more of a local teacher; else the k likeliest ids and the rest"
            " of the mass teach better.",
            minimum=0,
            maximum=65535,
        ),
    ] = 0
    demonstrations: Annotated[
        int,
        Key(
            "Training records that the teacher (only) sees before each prompt, so that a small one knows the"
            " format (context distillation).",
            minimum=0,
        ),
    ] = 0
    demonstrations_seed: Annotated[int, Key("Which records these are.", minimum=0)] = 0
    batch_tokens: Annotated[int, Key("Padded tokens scored at once.", minimum=1)] = 2048
    device: Annotated[
        Literal["auto", "cpu", "cuda", "mps"],
        Key("Where the teacher runs; 'auto' = cuda, else mps, else cpu."),
    ] = "auto"
    dtype: Annotated[Literal["fp32", "bf16"], Key("Its numbers; bf16 is slower on many CPUs.")] = "fp32"

    def check(self) -> None:
        """Checks that a teacher has a store, and that demonstrations and samples have a teacher."""
        if self.model is not None and self.store is None:
            raise ConfigError(
                "teacher.store: required beside teacher.model; set it to the directory that keeps its"
                " log-probabilities"
            )
        if self.demonstrations and self.model is None:
            allowed = "0 without teacher.model (there is nobody to show them to)"
            raise invalid("teacher.demonstrations", allowed, self.demonstrations)
        if self.samples and self.model is None:
            allowed = "0 without teacher.model (there is nothing to draw from)"
            raise invalid("teacher.samples", allowed, self.samples)
