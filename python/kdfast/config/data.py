"""Section `data`: the records, the tokenizer, the template and the shapes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from kdfast.config.choices import CallFormat
from kdfast.config.section import Key, Section, invalid


@dataclass(frozen=True, kw_only=True)
class DataConfig(Section):
    """Which records are read, and how they become batches. Relative paths start at the current directory.

    Examples:
        >>> data = DataConfig(train="train.jsonl", tokenizer="tokenizer.json", shapes=[128, 256])
        >>> data.shapes
        (128, 256)
        >>> DataConfig(train="train.jsonl", tokenizer="tokenizer.json", shapes=[256, 128])
        Traceback (most recent call last):
        ...
        kdfast.errors.ConfigError: data.shapes: must be sorted and without repeats, got [256, 128]
    """

    section: ClassVar[str] = "data"

    train: Annotated[
        Path | tuple[Path, ...],
        Key(
            "Training records: a JSONL file, or a list of files that are read one after the other.",
            on_resume=True,
        ),
    ]
    validation: Annotated[
        Path | None,
        Key("Held-out records, a JSONL file; null = neither validation nor evaluation.", on_resume=True),
    ] = None
    tokenizer: Annotated[Path, Key("tokenizer.json, or a directory that holds one.", on_resume=True)]
    template: Annotated[
        str,
        Key(
            "Chat template: 'auto' (the tokenizer's own where it shows tools and its calls are found again, else"
            " 'hermes'), 'hermes' (kdfast's own), 'tokenizer' (its own) or a .jinja file."
        ),
    ] = "auto"
    template_kwargs: Annotated[
        dict[str, Any] | None,
        Key(
            "Variables that the chat template reads, such as {enable_thinking: false}; null = none. The student's own"
            " template keeps them."
        ),
    ] = None
    show_tools: Annotated[
        bool,
        Key(
            "Whether the prompt shows the tools. false = they are baked into the student, for a device whose tools"
            " never change: records keep theirs, to validate calls, and the student's own template shows none."
        ),
    ] = True
    tool_call_format: Annotated[
        CallFormat,
        Key(
            "How calls are written in the answers (docs/tool_calls.md); 'auto' = as the chat template writes"
            " them, 'hermes' if it writes none."
        ),
    ] = "auto"
    shapes: Annotated[
        tuple[int, ...],
        Key(
            "Padded lengths in tokens, ascending; a row takes the smallest that holds it.",
            minimum=1,
            maximum=2**20,
        ),
    ] = (512, 1024, 2048, 4096)
    shape_probs: Annotated[
        Literal["natural", "production"] | tuple[float, ...],
        Key(
            "How a step's shape is drawn: 'natural' (the data's own shares), 'production' (short ones more"
            " often: 0.5/0.3/0.15/0.05 for four) or one weight per shape.",
            minimum=0,
        ),
    ] = "natural"
    shape_upweight_every: Annotated[
        int, Key("Every N steps the rarest shape is drawn more often; 0 = never.", minimum=0)
    ] = 0
    shape_upweight_factor: Annotated[
        float, Key("By how much the rarest shape's probability is multiplied at those steps.", minimum=1)
    ] = 2.0
    supervise: Annotated[
        Literal["last", "all"], Key("Which assistant turns are learned: the 'last' one, or 'all'.")
    ] = "last"
    on_error: Annotated[
        Literal["raise", "quarantine"],
        Key("A bad line stops the load ('raise') or is set aside with its reason ('quarantine')."),
    ] = "raise"
    max_rejected_fraction: Annotated[
        float, Key("With 'quarantine': the load fails above this share of bad lines.", minimum=0, maximum=1)
    ] = 0.01
    invalid_calls: Annotated[
        Literal["keep", "reject"],
        Key(
            "An answer with a call that breaks its tool's schema: 'reject' makes it an error of its line,"
            " 'keep' learns it and counts it."
        ),
    ] = "reject"
    content_tokens: Annotated[
        Literal["escape", "refuse", "allow"],
        Key(
            "Control tokens (such as <|im_end|>) in what people wrote in messages and tools: 'escape' learns them as"
            " text, 'refuse' makes them an error of their line, 'allow' makes tokens of them. Raw prompts and texts are"
            " left as they are."
        ),
    ] = "escape"
    max_line_bytes: Annotated[int, Key("A longer line is an error, not a memory problem.", minimum=1)] = (
        64 * 1024 * 1024
    )
    allow_reasoning: Annotated[
        bool,
        Key("Accept records with teacher_reasoning_content. Many teacher services forbid training on it."),
    ] = False
    prefix_tokens: Annotated[
        int, Key("Tokens kept of the teacher's first call (teacher_prefix_ids).", minimum=1)
    ] = 25
    workers: Annotated[
        int,
        Key("DataLoader processes; 0 = batches are made in the training process.", minimum=0, on_resume=True),
    ] = 0
    threads: Annotated[
        int,
        Key(
            "Threads of the Rust core; 0 = one per CPU. The result never depends on it.",
            minimum=0,
            maximum=1024,
            on_resume=True,
        ),
    ] = 0
    cache: Annotated[
        Path | None,
        Key("Where prepared token stores are kept; null = beside each dataset.", on_resume=True),
    ] = None

    @property
    def train_files(self) -> tuple[Path, ...]:
        """The files of training records."""
        return (self.train,) if isinstance(self.train, Path) else self.train

    def check(self) -> None:
        """Checks shapes, their weights, the template, and that validation is not the training data."""
        if not self.shapes:
            raise invalid("data.shapes", "a list of at least one length", [])
        if list(self.shapes) != sorted(set(self.shapes)):
            raise invalid("data.shapes", "sorted and without repeats", list(self.shapes))
        if isinstance(self.shape_probs, tuple):
            if len(self.shape_probs) != len(self.shapes):
                allowed = f"one weight for each of the {len(self.shapes)} data.shapes"
                raise invalid("data.shape_probs", allowed, list(self.shape_probs))
            if not sum(self.shape_probs) > 0:
                raise invalid("data.shape_probs", "weights with a sum above 0", list(self.shape_probs))
        if self.shape_probs == "production" and not 1 <= len(self.shapes) <= 4:
            allowed = (
                f"'natural' or one weight a shape ('production' knows up to 4, there are {len(self.shapes)})"
            )
            raise invalid("data.shape_probs", allowed, self.shape_probs)
        named = self.template in ("auto", "hermes", "tokenizer")
        if not named and (not self.template.endswith(".jinja") or "\0" in self.template):
            allowed = "'auto', 'hermes', 'tokenizer' or the path of a .jinja file"
            raise invalid("data.template", allowed, self.template)
        if not self.train_files:
            raise invalid("data.train", "a file, or a list of at least one", [])
        if len(set(self.train_files)) < len(self.train_files):
            raise invalid("data.train", "files that are named once", [str(file) for file in self.train_files])
        if self.validation in self.train_files:
            raise invalid("data.validation", "another file than data.train", self.validation)
