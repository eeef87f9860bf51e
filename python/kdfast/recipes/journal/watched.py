"""A journal that is read while a bar is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from kdfast.display import Display
from kdfast.teacher.api.journal import Journal
from kdfast.teacher.api.journal.faults import rollback_file

_LONG = 2000
"""Requests from which on a bar is shown: they take a second."""


class WatchedJournal(Journal):
    """A journal that is open for reading only, and tells how far a reader of all its requests is.

    Args:
        path: the file.

    Raises:
        DataError: as `Journal` raises it.
        OSError: the same.
    """

    def __init__(self, path: Path) -> None:
        self._on_page: Callable[[int], None] = lambda _: None
        try:
            super().__init__(path, read_only=True)
        except PermissionError as error:
            if rollback_file(path.resolve()).exists():
                error.add_note("`kdfast teach` does this when it goes on")
            raise

    def pages(self, condition: str = "1") -> Iterator[list[str]]:
        """The journal's pages; tells the number of requests of each that was read."""
        for hashes in super().pages(condition):
            yield hashes
            self._on_page(len(hashes))

    @contextmanager
    def shown(self, what: str, total: int) -> Iterator[None]:
        """Shows a bar on stderr inside the block, if the work is long."""
        with Display(Console(stderr=True, quiet=total < _LONG)).working(what, total) as tell:
            done = 0

            def on_page(count: int) -> None:
                nonlocal done
                done = min(total, done + count)
                tell(done, "")

            self._on_page = on_page
            yield
