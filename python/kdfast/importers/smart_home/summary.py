"""What an import of a smart home read, left out and wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kdfast.importers.smart_home.rows import Built
from kdfast.importers.smart_home.templates import TEST, TRAIN, VALIDATION, Template


@dataclass(frozen=True, kw_only=True)
class ImportSummary:
    """What an import read, left out and wrote.

    Attributes:
        paths: the files, by name.
        categories: by file how many records each category has.
        slices: by file how many records each slice has.
        tools: how many tools there are.
        templates: how many templates each part has: "train", "validation", "test".
        left_out: how many templates this home cannot use, by reason.
        clashes: how many sentences were dropped because they came up with two meanings.
        ambiguous: how many because two templates with different calls make them.
        notes: what a reader should know.
    """

    paths: dict[str, Path]
    categories: dict[str, dict[str, int]]
    slices: dict[str, dict[str, int]]
    tools: int
    templates: dict[str, int]
    left_out: dict[str, int]
    clashes: int
    ambiguous: int
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The summary as JSON values."""
        return asdict(self) | {"paths": {name: str(path) for name, path in self.paths.items()}}

    def lines(self) -> list[str]:
        """The summary as people read it."""
        result = []
        for name, path in self.paths.items():
            stem = name.removesuffix(".jsonl")
            if stem in self.categories:
                kinds, slices = self.categories[stem], self.slices[stem]
                result.append(f"{path}: {sum(kinds.values())} records ({_listed(kinds)})")
                if len(slices) > 1:
                    result.append(f"  slices: {_listed(slices)}")
            else:
                result.append(f"{path}: {self.tools} tools")
        held = ", ".join(f"{count} only in {part}" for part, count in self.templates.items() if part != TRAIN)
        result.append(f"templates: {sum(self.templates.values())}, of these {held}")
        result += [f"left out: {count} templates ({reason})" for reason, count in self.left_out.items()]
        result.append(
            f"dropped: {self.clashes} sentences with two meanings, {self.ambiguous} that two templates make"
        )
        return result + [f"note: {note}" for note in self.notes]


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def summary(
    paths: dict[str, Path],
    built: Built,
    templates: Sequence[Template],
    left_out: Mapping[str, int],
    notes: Sequence[str],
) -> ImportSummary:
    """Counts what was built.

    Args:
        paths: the files, by name.
        built: the rows of the files.
        templates: those that call a tool.
        left_out: how many templates this home cannot use, by reason.
        notes: what a reader should know.
    """
    parts = Counter(template.part for template in templates)
    return ImportSummary(
        paths=paths,
        categories={
            name: dict(Counter(row.category for row in rows).most_common())
            for name, rows in built.files.items()
        },
        slices={
            name: dict(Counter(row.slice for row in rows).most_common()) for name, rows in built.files.items()
        },
        tools=len({template.intent for template in templates}),
        templates={part: parts[part] for part in (TRAIN, VALIDATION, TEST)},
        left_out=dict(left_out),
        clashes=built.clashes,
        ambiguous=built.ambiguous,
        notes=tuple(notes),
    )
