"""What `kdfast export` exports. No torch in here: the command line takes its defaults from this class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdfast.config.export import GgufType, Target, Waiver

NOT_ASKED = "not verified: --no-verify"


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """One export.

    Attributes:
        model: a run folder, or a student's Hugging Face directory.
        target: the format.
        out: the folder to make.
        gguf_type: the weights of the GGUF; None = those of the student's table, else q8_0.
        prompts: held-out records, JSONL, for the comparison; None = nothing is run.
        template_kwargs: variables that the chat template reads, as in training.
        tools: a JSON list of tools, for the grammar; None = the records' tools where all share one set.
        verify: compare the export with what was trained.
        waive: differences that are accepted.
        pre: llama.cpp's name of the pre-tokenizer, for a tokenizer that kdfast does not know; None = from its table.
        name: the student's name in the files; None = the folder's.
        license: the student's licence; None = not stated.
        replace: whether an older export in `out` is replaced.
        threads: CPU threads; 0 = OMP_NUM_THREADS, else all.
        answer_tokens: tokens of an answer at most, when calls are compared.
    """

    model: Path
    target: Target
    out: Path
    gguf_type: GgufType | None = None
    prompts: Path | None = None
    template_kwargs: Mapping[str, Any] | None = None
    tools: Path | None = None
    verify: bool = True
    waive: tuple[Waiver, ...] = ()
    pre: str | None = None
    name: str | None = None
    license: str | None = None
    replace: bool = False
    threads: int = 0
    answer_tokens: int = 128

    @property
    def student_name(self) -> str:
        """The student's name in the files: the one that was given, else that of the run's or the model's folder.

        Example:
            >>> ExportRequest(model=Path("runs/first"), target="gguf", out=Path("out")).student_name
            'first'
        """
        from kdfast.export.origin import public_name

        return self.name or public_name(self.model.resolve())

    @property
    def asked(self) -> dict[str, Any]:
        """What decides the export beside the student itself, for its manifest.

        Example:
            >>> ExportRequest(model=Path("runs/first"), target="hf", out=Path("out"), verify=False).asked
            {'type': None, 'verify': False, 'waive': [], 'pre': None, 'license': None}
        """
        return {
            "type": self.gguf_type,
            "verify": self.verify,
            "waive": list(self.waive),
            "pre": self.pre,
            "license": self.license,
        }
