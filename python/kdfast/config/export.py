"""Section `export`: which files the finished student leaves as, and whether they are proven."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from kdfast.config.quant import QuantConfig
from kdfast.config.section import Key, Section, invalid

Target = Literal["gguf", "hf"]
GgufType = Literal["f16", "q8_0", "q4_0"]
"""What a GGUF file is called by: the format of most of its weights."""

Waiver = Literal[
    "number", "rounding", "key-order", "keys", "white-space", "escape", "date", "content", "refused", "calls"
]
"""Names of differences that a user may accept; `kdfast.export.parity.difference` says what each is."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig(Section):
    """What happens to the student after training; each target goes to RUN/export/TARGET.

    Examples:
        >>> ExportConfig(targets=["gguf"]).targets
        ('gguf',)
        >>> ExportConfig(targets=["gguf", "gguf"])
        Traceback (most recent call last):
        ...
        kdfast.errors.ConfigError: export.targets: must be names, each once, got ('gguf', 'gguf')
    """

    section: ClassVar[str] = "export"

    targets: Annotated[
        tuple[Target, ...],
        Key(
            "Formats of the finished student, in RUN/export: 'gguf' (llama.cpp), 'hf' (transformers, vLLM).",
            on_resume=True,
        ),
    ] = ()
    gguf_type: Annotated[
        GgufType | None,
        Key(
            "Weights of the GGUF; null = those that the student was trained with under quantisation, else q8_0.",
            on_resume=True,
        ),
    ] = None
    verify: Annotated[
        bool,
        Key(
            "Run each export and compare it with what was trained; the run fails (exit code 3) when it differs.",
            on_resume=True,
        ),
    ] = True
    waive: Annotated[
        tuple[Waiver, ...],
        Key("Differences that are accepted, by name; see docs/export.md.", on_resume=True),
    ] = ()
    license: Annotated[
        str | None,
        Key(
            "The student's licence for its model card, such as 'apache-2.0'; null = not stated.",
            on_resume=True,
        ),
    ] = None

    def check(self) -> None:
        """Checks that no name is given twice."""
        for name, values in (("targets", self.targets), ("waive", self.waive)):
            if len(set(values)) < len(values):
                raise invalid(f"export.{name}", "names, each once", values)

    def check_quant(self, quant: QuantConfig) -> None:
        """Checks that a student under quantisation leaves as it was trained.

        Args:
            quant: the config's section `quant`.

        Raises:
            ConfigError: another type is asked for.
        """
        own: GgufType = "q4_0" if quant.format == "q4_0" else "q8_0"
        if quant.enabled and "gguf" in self.targets and self.gguf_type not in (None, own):
            allowed = (
                f"null or {own!r} with quant.format {quant.format} (the student would be quantised twice)"
            )
            raise invalid("export.gguf_type", allowed, self.gguf_type)

    def unused(self) -> frozenset[str]:
        """The keys that have no effect, given the section's other values."""
        if not self.targets:
            return frozenset(self.names()) - {"targets"}
        without_type = frozenset() if "gguf" in self.targets else frozenset({"gguf_type"})
        return without_type if self.verify else without_type | {"waive"}
