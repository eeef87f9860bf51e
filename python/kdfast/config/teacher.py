"""Section `teacher`: who answers the prompts, and whose log-probabilities the student learns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from kdfast.config.section import Key, Section, invalid
from kdfast.errors import ConfigError


@dataclass(frozen=True)
class TeachFiles:
    """The files of a teacher that answers.

    Attributes:
        prompts: what it is asked.
        out: the records with its answers.
        journal: every request and answer.
    """

    prompts: Path
    out: Path
    journal: Path


@dataclass(frozen=True, kw_only=True)
class TeacherConfig(Section):
    """A teacher, what it is asked, and where its answers go; all keys are optional.

    Examples:
        >>> TeacherConfig().model is None
        True
        >>> TeacherConfig(model="some/model")
        Traceback (most recent call last):
        ...
        kdfast.errors.ConfigError: teacher.store: required beside teacher.model unless teacher.live is true; set it
        to the directory that keeps its log-probabilities
    """

    section: ClassVar[str] = "teacher"

    kind: Annotated[
        Literal["local", "api", "replay"],
        Key(
            "'local' (teacher.model) answers and scores, 'api' (section api) answers, 'replay' reads the answers from"
            " teacher.journal and asks nobody.",
            on_resume=True,
        ),
    ] = "local"
    prompts: Annotated[
        Path | None,
        Key("What the teacher is asked: records without an answer, JSONL; null = nothing.", on_resume=True),
    ] = None
    out: Annotated[
        Path | None,
        Key(
            "Where `kdfast teach` writes the records with the teacher's answers, for data.train.",
            on_resume=True,
        ),
    ] = None
    journal: Annotated[
        Path | None,
        Key(
            "Every request and answer, an SQLite file on a local disk; null = teacher.out with .db at its end.",
            on_resume=True,
        ),
    ] = None
    answers_per_prompt: Annotated[
        int,
        Key("Different answers to each prompt; more than 1 needs a temperature.", minimum=1, on_resume=True),
    ] = 1
    max_new_tokens: Annotated[
        int, Key("An answer is cut after this many tokens, and then left out.", minimum=1, on_resume=True)
    ] = 512
    temperature: Annotated[
        float, Key("0 = the likeliest answer, 1 = drawn as the teacher says.", minimum=0, on_resume=True)
    ] = 0.0
    seed: Annotated[
        int,
        Key(
            "Decides draws of a temperature, and which prompts --limit and --pilot take.",
            minimum=0,
            on_resume=True,
        ),
    ] = 0
    batch_size: Annotated[
        int, Key("Prompts that a local teacher answers at once.", minimum=1, on_resume=True)
    ] = 8
    budget: Annotated[
        float | None,
        Key(
            "Most that all requests in the journal may cost, in the currency of the prices; null = no limit.",
            minimum=0,
            on_resume=True,
        ),
    ] = None
    max_retries: Annotated[
        int, Key("Tries after the first one, of a request that certainly failed.", minimum=0, on_resume=True)
    ] = 8
    max_unknown_retries: Annotated[
        int,
        Key(
            "Tries after one whose outcome is unknown (time-out, reset, cut body); each may be charged.",
            minimum=0,
            on_resume=True,
        ),
    ] = 1
    ask_refused_again: Annotated[
        bool,
        Key(
            "Ask again what the server refused (status 400 and above): after you changed how it is set up.",
            on_resume=True,
        ),
    ] = False
    max_failures_in_a_row: Annotated[
        int, Key("The job stops when so many requests in a row fail for good.", minimum=1, on_resume=True)
    ] = 20
    terms: Annotated[
        Literal["acknowledged"] | None,
        Key(
            "'acknowledged' = you have read the terms of the hosted server and may train on its answers.",
            on_resume=True,
        ),
    ] = None
    redact: Annotated[
        bool,
        Key(
            "Replace e-mail addresses, phone and card numbers and keys before records leave this machine.",
            on_resume=True,
        ),
    ] = False
    pilot_min_valid_fraction: Annotated[
        float,
        Key(
            "--pilot says go if valid calls are surely above this share.",
            minimum=0,
            maximum=1,
            on_resume=True,
        ),
    ] = 0.5
    pilot_max_false_fraction: Annotated[
        float,
        Key(
            "--pilot says no-go if more prompts than this share get a call that is not due.",
            minimum=0,
            maximum=1,
            on_resume=True,
        ),
    ] = 0.25

    model: Annotated[
        Path | None, Key("A Hugging Face causal LM's directory or a .gguf file; null = none.", on_resume=True)
    ] = None
    store: Annotated[
        Path | None,
        Key("Directory of the teacher store: written by `kdfast teach`, read by training.", on_resume=True),
    ] = None
    live: Annotated[
        bool,
        Key(
            "Whether teacher.model runs beside the student in each training step, on its device: kd.kl_weight is then"
            " the divergence from its whole distribution, at any kd.temperature, and no store is needed.",
        ),
    ] = False
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
        Key("Where the teacher runs; 'auto' = cuda, else mps, else cpu; a live one runs on train.device."),
    ] = "auto"
    dtype: Annotated[Literal["fp32", "bf16"], Key("Its numbers; bf16 is slower on many CPUs.")] = "fp32"

    def check(self) -> None:
        """Checks keys that need each other."""
        if (self.prompts is None) != (self.out is None):
            given, missing = ("out", "prompts") if self.prompts is None else ("prompts", "out")
            raise ConfigError(f"teacher.{missing}: required beside teacher.{given}; set both or neither")
        if self.out is not None and self.out in (self.prompts, self.journal):
            raise invalid("teacher.out", "another file than teacher.prompts and teacher.journal", self.out)
        if self.answers_per_prompt > 1 and not self.temperature:
            allowed = "1 with teacher.temperature 0 (all answers would be the same)"
            raise invalid("teacher.answers_per_prompt", allowed, self.answers_per_prompt)
        self._check_live()
        self._check_store()

    def _check_live(self) -> None:
        if not self.live:
            return
        if self.model is None:
            raise ConfigError(
                "teacher.model: required beside teacher.live; set it to a Hugging Face directory or a .gguf file"
            )
        if self.demonstrations:
            allowed = "0 with teacher.live (teacher and student would not read the same ids)"
            raise invalid("teacher.demonstrations", allowed, self.demonstrations)
        if self.samples and self.store is None:
            allowed = (
                "0 with teacher.live, unless teacher.store is set (ids are drawn by `kdfast teach` only)"
            )
            raise invalid("teacher.samples", allowed, self.samples)

    def _check_store(self) -> None:
        if self.model is not None and self.store is None and not self.live:
            raise ConfigError(
                "teacher.store: required beside teacher.model unless teacher.live is true; set it to the directory that"
                " keeps its log-probabilities"
            )
        if self.demonstrations and self.model is None:
            allowed = "0 without teacher.model (there is nobody to show them to)"
            raise invalid("teacher.demonstrations", allowed, self.demonstrations)
        if self.samples and self.model is None:
            allowed = "0 without teacher.model (there is nothing to draw from)"
            raise invalid("teacher.samples", allowed, self.samples)

    @property
    def files(self) -> TeachFiles | None:
        """What is asked, and where answers go; None if there are no prompts."""
        if self.prompts is None or self.out is None:
            return None
        journal = self.journal or self.out.with_name(f"{self.out.name}.db")
        return TeachFiles(self.prompts, self.out, journal)
