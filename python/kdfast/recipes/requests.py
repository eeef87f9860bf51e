"""What a command asks of its recipe, where it runs a model on prompts; each default stands here and nowhere else.

No torch in here: the command line takes its defaults from these classes, and `--help` must be instant.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdfast.config import DataConfig, GatesConfig


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """How to run a model.

    Attributes:
        template: "tokenizer" (the model's own), "hermes" or the path of a .jinja file.
        template_kwargs: variables that the template reads, by name; None = none.
        max_new_tokens: an answer is cut after this many tokens.
        threads: CPU threads; 0 = torch's default, or one a usable core in llama.cpp.
        device: one of `kdfast.config.choices.DEVICES`; an export runs on the CPU.
        dtype: the number format of the weights, one of `kdfast.config.choices.DTYPES`; an export has its own.
        formats: call formats that count, see `kdfast.find_tool_calls`; empty = the one that the template writes.
    """

    template: str = "tokenizer"
    template_kwargs: Mapping[str, Any] | None = None
    max_new_tokens: int = 128
    threads: int = 0
    device: str = "auto"
    dtype: str = "fp32"
    formats: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Settings(ModelSettings):
    """How to run a model on prompts.

    Attributes:
        prompts: records, JSONL.
        limit: only the first `limit` prompts; 0 = all.
        warmup: generations before the first measured one.
    """

    prompts: Path
    limit: int = 0
    warmup: int = 1


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest(Settings):
    """What `kdfast eval` evaluates.

    Attributes:
        model: a Hugging Face directory, a run folder, or the folder of an export.
        out: the file to write, JSON; the answers are also written beside it as CSV.
        constrained: evaluate a second time, with calls constrained to their schemas.
        batch_size: most prompts that are answered at the same time; an export answers them one by one.
        show: how many wrong answers to print.
    """

    model: Path
    out: Path = Path("evaluation.json")
    constrained: bool = False
    batch_size: int = 64
    show: int = 3


@dataclass(frozen=True, kw_only=True)
class MeasureRequest(Settings):
    """What `kdfast measure` measures.

    Attributes:
        model: a Hugging Face directory, a run folder, or the folder of an export.
        out: the report to write.
    """

    model: Path
    out: Path


@dataclass(frozen=True, kw_only=True)
class BlessRequest(Settings):
    """What `kdfast bless` blesses.

    Attributes:
        model: a Hugging Face directory, a run folder, or the folder of an export.
        out: the bundle to write.
        limits: the section `gates`: how many pairs to run.
        seed: decides the order of the runs and the bootstrap's draws.
    """

    model: Path
    out: Path
    limits: GatesConfig = field(default_factory=GatesConfig)
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class GateRequest(Settings):
    """Which models `kdfast gate` runs.

    Attributes:
        candidate: a Hugging Face directory, a run folder, or the folder of an export.
        blessed: the model to run against it, interleaved. None = the candidate runs alone; then the gates that need
            no second model are judged by the baseline's file.
        reports: folder for the speed reports of both, `candidate.json` and `blessed.json`; None = not kept.
        seed: decides the order of the runs and the bootstrap's draws.
    """

    candidate: Path
    blessed: Path | None = None
    reports: Path | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class ChatRequest(ModelSettings):
    """With what `kdfast chat` talks.

    Attributes:
        model: a Hugging Face directory, a run folder, or the folder of an export.
        tools: a JSON file with the list of tools; None = no tools.
        system: the system prompt; None = none.
        context: the conversation has room for this many tokens, or for as many as the model reads if that is less.
        forget: whether each sentence starts a new conversation.
    """

    model: Path
    tools: Path | None = None
    system: str | None = None
    max_new_tokens: int = 512
    context: int = 4096
    forget: bool = False


@dataclass(frozen=True, kw_only=True)
class TeachRequest:
    """What `kdfast teach` does beside what its config says.

    Attributes:
        dry_run: ask nothing; print what the job would cost.
        pilot: ask this many prompts whose right answer is known, and score the answers; 0 = no pilot.
        limit: ask at most this many prompts; 0 = all.
        json_out: also write the result there; None = no.
        command: how the user started it, word by word, for messages that say how to go on.
    """

    dry_run: bool = False
    pilot: int = 0
    limit: int = 0
    json_out: Path | None = None
    command: tuple[str, ...] = ("kdfast", "teach", "CONFIG")

    def again(self, *, without: str = "") -> str:
        """The command that goes on.

        Args:
            without: leave out the override of this key.
        """
        return shlex.join(word for word in self.command if not without or not word.startswith(f"{without}="))


@dataclass(frozen=True, kw_only=True)
class InspectRequest:
    """What `kdfast data inspect` looks at.

    Attributes:
        path: records, JSONL.
        tokenizer: tokenizer.json, or the directory that holds it.
        template: "auto", "hermes", "tokenizer" or a .jinja file.
        template_kwargs: variables that the template reads, by name; None = none.
        show_tools: whether prompts show the tools, see `data.show_tools`.
        tool_call_format: the format of the calls, or "auto".
        shapes: padded lengths in tokens, ascending.
        line: the line whose record is the example; None = the first record's.
        validation: held-out records, whose prompts are looked up in `path`; None = none.
    """

    path: Path
    tokenizer: Path
    template: str = DataConfig.template
    template_kwargs: Mapping[str, Any] | None = None
    show_tools: bool = DataConfig.show_tools
    tool_call_format: str = DataConfig.tool_call_format
    shapes: tuple[int, ...] = DataConfig.shapes
    line: int | None = None
    validation: Path | None = None
