"""Whether the teacher stores of a config hold the log-probabilities of a dataset's rows. No torch in here."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdfast import _rust
from kdfast.config import Config
from kdfast.config.teacher import TeacherConfig
from kdfast.errors import DataError
from kdfast.recipes.journal.lines import count

if TYPE_CHECKING:
    from kdfast.data.token_rows import Reader, TokenRows

_PATTERN = "*.teacher.arrow"
_MOST_LINES = 5


@dataclass(frozen=True, kw_only=True)
class StoreCheck:
    """One teacher store beside a dataset.

    Attributes:
        path: the store.
        rows: rows in it; None = it cannot be read.
        lacking: lines of the dataset, one for each row whose log-probabilities the store lacks, ascending.
        damage: why its content cannot be trusted; "" = every row matches its checksum.
        other_settings: how it differs from the config, which then does not read it; "" = not at all.
    """

    path: Path
    rows: int | None = None
    lacking: Sequence[int] = ()
    damage: str = ""
    other_settings: str = ""


@dataclass(frozen=True, kw_only=True)
class StoresCheck:
    """The teacher stores of a config beside a dataset.

    Attributes:
        out: the dataset.
        directory: `teacher.store`.
        rows: rows of the dataset that training reads.
        refused: lines of the dataset that training refuses or leaves out: nothing of them can be compared.
        demonstrations: so many rows may be without log-probabilities: the teacher is shown training rows as
            demonstrations (`teacher.demonstrations`) and does not score these.
        stores: the stores.
    """

    out: Path
    directory: Path
    rows: int
    refused: Sequence[int]
    demonstrations: int
    stores: Sequence[StoreCheck]

    @property
    def lacks_demonstrations(self) -> bool:
        """Whether a store that the config reads lacks rows; if there are no faults, on purpose."""
        return any(store.lacking and not store.other_settings for store in self.stores)

    def lines(self) -> Iterator[tuple[str, str]]:
        """What was found, as names and texts."""
        if self.refused:
            told = f"{count(len(self.refused), 'line')} of {self.out} ({_named(self.refused)})"
            yield "not compared", f"{told}: training does not read them"
        for store in self.stores:
            if store.rows is not None:
                held = f"{self.rows - len(store.lacking)} of the {count(self.rows, 'row')} of {self.out}"
                yield "store", f"{count(store.rows, 'row')}, {held} among them: {store.path}"
            if store.damage:
                yield "fault", f"{store.damage}: {store.path}"
            if store.other_settings:
                yield "not compared", f"this config does not read it: {store.other_settings}"
            elif store.lacking:
                yield self._lacking(store)

    def faults(self) -> Iterator[str]:
        """What is wrong, each with its remedy; nothing = all rows have their log-probabilities."""
        if self.refused:
            yield (
                f"training does not read {count(len(self.refused), 'line')} of it; name the config that they were "
                "written with, or write the dataset again with `kdfast teach`"
            )
        if all(store.other_settings for store in self.stores):
            yield f"no teacher store of this config is in {self.directory}; run `kdfast teach CONFIG`"
        for store in self.stores:
            if store.damage:
                yield (
                    "a teacher store is damaged; restore it, or delete it and run `kdfast teach CONFIG`: "
                    f"{store.path}"
                )
            if not store.other_settings and len(store.lacking) > self.demonstrations:
                yield (
                    f"a teacher store lacks the log-probabilities of {count(len(store.lacking), 'row')}; run `kdfast "
                    f"teach CONFIG`, or remove the store if it is of a former teacher: {store.path}"
                )

    def _lacking(self, store: StoreCheck) -> tuple[str, str]:
        told = f"{count(len(store.lacking), 'row')} of {self.out} (line {_named(store.lacking)})"
        if len(store.lacking) > self.demonstrations:
            beside = f"; {self.demonstrations} may be demonstrations" * bool(self.demonstrations)
            return "missing", f"log-probabilities of {told}{beside}"
        return (
            "not scored",
            f"{told}: no fault, as {self.demonstrations} may be left out (teacher.demonstrations)",
        )


def why_not_compared(config: Config) -> str:
    """Why no store has to hold the log-probabilities of `teacher.out`; "" = one has to.

    Args:
        config: a config with `teacher.out`.
    """
    teacher = config.teacher
    if answers_carry_logprobs(config):
        return "the log-probabilities of a server's answers are in the records"
    if teacher.store is None:
        return "teacher.store is not set"
    if teacher.out not in (*config.data.train_files, config.data.validation):
        return "teacher.out is not among data.train, so nothing scores it"
    return ""


def answers_carry_logprobs(config: Config) -> bool:
    """Whether the log-probabilities come with the answers of a server, and stand in the records."""
    kind = config.teacher.kind
    return kind == "api" or (kind == "replay" and config.api.base_url is not None)


def check_stores(config: Config, out: Path, directory: Path) -> StoresCheck:
    """Compares the teacher stores of a config with the rows of a dataset, and checks all of their rows.

    Args:
        config: says how the dataset is read.
        out: the dataset, JSONL.
        directory: `teacher.store`: where the stores are, or a store.

    Raises:
        ConfigError: a key about the tokenizer or the template is wrong.
        DataError: tokenizer or template cannot be read, or the dataset holds no record; names file and remedy.
        OSError: a file cannot be read.
    """
    from kdfast.data.token_rows import Reader  # imports numpy, which the other commands do without

    reader = Reader.of(config.data)
    files = sorted(directory.glob(_PATTERN)) if directory.is_dir() else [directory] * directory.exists()
    with tempfile.TemporaryDirectory(prefix="kdfast-verify-") as folder:
        rows = _rows(reader, out, Path(folder))
        return StoresCheck(
            out=out,
            directory=directory,
            rows=len(_lines(rows, range(len(rows.store)))),
            refused=sorted(rows.refused),
            demonstrations=config.teacher.demonstrations if out in config.data.train_files else 0,
            stores=[_check(file, rows, config.teacher) for file in files],
        )


def _rows(reader: Reader, out: Path, folder: Path) -> TokenRows:
    copy = folder / out.name  # the reader writes files beside what it reads
    shutil.copyfile(out, copy)
    try:
        return reader.rows(copy)
    except DataError as error:
        raise DataError(error.message, str(out), error.line, error.column) from None


def _check(file: Path, rows: TokenRows, settings: TeacherConfig) -> StoreCheck:
    try:
        store = _rust.TeacherStore.open(file)
    except DataError as error:
        return StoreCheck(path=file, damage=error.message)
    held = store.contains(rows.store.row_keys(store.fingerprint)).tolist()
    return StoreCheck(
        path=file,
        rows=len(store),
        lacking=_lines(rows, [row for row, there in enumerate(held) if not there]),
        damage=_damage(store),
        other_settings=_other_settings(store, settings),
    )


def _damage(store: _rust.TeacherStore) -> str:
    damaged = store.audit()
    if not damaged:
        return ""
    return (
        f"{len(damaged)} of {count(len(store), 'row')} do not match their checksum, the first is {damaged[0]}"
    )


def _lines(rows: TokenRows, wanted: Sequence[int]) -> list[int]:
    return sorted(rows.store.line(row) for row in wanted if rows.store.line(row) not in rows.refused)


def _other_settings(store: _rust.TeacherStore, settings: TeacherConfig) -> str:
    """How a store differs from what a config's own teacher writes. Without one, the config reads what is there."""
    if settings.model is None:
        return ""
    pairs = (("k", store.k, settings.k), ("samples", store.samples, settings.samples))
    return ", ".join(
        f"teacher.{name} is {wanted}, its is {found}" for name, found, wanted in pairs if found != wanted
    )


def _named(lines: Sequence[int]) -> str:
    """The first of some lines, each once."""
    once = list(dict.fromkeys(lines))
    return ", ".join(map(str, once[:_MOST_LINES])) + ", ..." * (len(once) > _MOST_LINES)
