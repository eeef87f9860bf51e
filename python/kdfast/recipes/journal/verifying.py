"""The full check of a journal, and whether a dataset and the teacher stores hold what it says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from kdfast.config import Config
from kdfast.errors import ConfigError, DataError
from kdfast.recipes.first_look.files import check_named, file_problem
from kdfast.recipes.journal.lines import count, say
from kdfast.recipes.journal.stores import (
    StoresCheck,
    answers_carry_logprobs,
    check_stores,
    why_not_compared,
)
from kdfast.recipes.journal.watched import WatchedJournal
from kdfast.teacher.api.journal import Verification
from kdfast.teacher.api.journal import verify as check
from kdfast.teacher.api.journal.faults import remedy
from kdfast.teacher.api.made_records import MadeRecords

_MOST_LISTED = 10


def verify(path: Path, datasets: Sequence[Path] = (), config: Config | None = None) -> None:
    """Reads and checks everything in the journal, and compares it with datasets and with teacher stores.

    Args:
        path: the journal.
        datasets: JSONL files that `kdfast teach` wrote.
        config: its `teacher.out` is one more dataset, and its `teacher.store` has to hold that one's rows.

    Raises:
        ConfigError: a dataset is not there, or the config names none.
        DataError: the journal is not whole, does not hold what a dataset was made from, or a store lacks rows of it or
            is damaged; names the remedy.
        OSError: a file cannot be read.
    """
    check_named([("--dataset", file_problem(one)) for one in datasets])
    out = None if config is None else _out_of(config)
    if out is not None:
        datasets = list(dict.fromkeys([*datasets, out]))
    stores = None if config is None else _stores_of(config)
    made = MadeRecords(datasets)
    with WatchedJournal(path) as journal, journal.shown("verify", journal.stats().requests):
        found = check(journal, made.answers() if datasets else None)
    console = Console()
    say(console, "read", f"{count(found.requests, 'request')}, {count(found.answers, 'response')}: {path}")
    for fault in found.faults:
        say(console, "fault", fault)
    if datasets:
        _print_compared(console, found, made)
    if config is not None:
        _print_stores(console, config, stores, made)
    _raise_faults(found, path, stores)
    told = ["whole", *["the records were made from its answers"] * bool(made.records)]
    if stores is not None:
        but = ", but for demonstrations" * stores.lacks_demonstrations
        told.append(f"their log-probabilities are in the store{but}")
    say(console, "verdict", ", and ".join(told))


def _out_of(config: Config) -> Path:
    out = config.teacher.out
    if out is None:
        raise ConfigError("teacher.out: needed by --config: the records that are compared; name a file")
    check_named([("teacher.out", file_problem(out))])
    return out


def _stores_of(config: Config) -> StoresCheck | None:
    """What the stores of a config hold; None = they need not hold anything of `teacher.out`."""
    out, directory = config.teacher.out, config.teacher.store
    if out is None or directory is None or why_not_compared(config):
        return None
    return check_stores(config, out, directory)


def _print_stores(console: Console, config: Config, stores: StoresCheck | None, made: MadeRecords) -> None:
    if answers_carry_logprobs(config):
        told = (
            f"{made.with_logprobs} of {count(made.records + made.others, 'record')} carry log-probabilities"
        )
        say(console, "teacher_topk", f"{told}; training makes a store of them")
    if stores is None:
        say(console, "store", f"not compared: {why_not_compared(config)}")
        return
    for name, text in stores.lines():
        say(console, name, text)


def _raise_faults(found: Verification, path: Path, stores: StoresCheck | None) -> None:
    of_stores = [] if stores is None else list(stores.faults())
    if not found.ok:
        raise DataError("; ".join([_verdict_of(found, path), *of_stores]), str(path))
    if stores is not None and of_stores:
        raise DataError("; ".join(of_stores), str(stores.out))


def _print_compared(console: Console, found: Verification, made: MadeRecords) -> None:
    named = ", ".join(map(str, made.paths))
    say(console, "compared", f"{count(made.records, 'record')}: {named}")
    if made.others:
        told = f"{count(made.others, 'record')} without metadata.teacher.request: not compared"
        say(console, "others", told)
    for name, hashes in (("missing", found.missing), ("differing", found.differing)):
        for one in hashes[:_MOST_LISTED]:
            say(console, name, f"{made.places[one]}: the answer to {one[:12]}")
        if len(hashes) > _MOST_LISTED:
            say(console, name, f"and {len(hashes) - _MOST_LISTED} more")
    if found.unwritten:
        first = ", ".join(one[:12] for one in found.unwritten[:3]) + ", ..." * (len(found.unwritten) > 3)
        told = f"{count(len(found.unwritten), 'accepted answer')} in no dataset ({first}): no fault"
        say(console, "not written", told)


def _verdict_of(found: Verification, path: Path) -> str:
    parts = []
    if found.faults:
        parts.append(
            f"the journal is damaged ({count(len(found.faults), 'fault')}); {remedy(path.resolve())}"
        )
    gone = [
        f"{len(one)} {what}"
        for one, what in ((found.missing, "missing"), (found.differing, "differing"))
        if one
    ]
    if gone:
        parts.append(
            f"records were made from answers that this journal does not hold ({', '.join(gone)}); "
            "name the journal that they were made from, or write the dataset again with `kdfast teach`"
        )
    return "; ".join(parts)
