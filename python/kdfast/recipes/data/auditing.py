"""Audits stores. No torch in here: a wrong path is said at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from kdfast import _rust
from kdfast.errors import DataError
from kdfast.recipes.first_look.files import check_named, file_problem

_KINDS: dict[str, Callable[[Path], _rust.TokenStore | _rust.TeacherStore]] = {
    ".tokens.arrow": _rust.TokenStore.open,
    "teacher.arrow": _rust.TeacherStore.open,
}


def audit(path: Path) -> Iterator[str]:
    """Checks every row of every store below `path` (a store file, or a directory) against its checksum.

    Yields:
        one line of text per store.

    Raises:
        ConfigError: there is no such path.
        DataError: a row is damaged, or there is no store.
    """
    check_named([("DIRECTORY", file_problem(path, or_directory=True))])
    files = sorted(path.glob("*.arrow")) if path.is_dir() else [path]
    if not files:
        raise DataError("holds no token store and no teacher store (*.arrow)", str(path))
    for file in files:
        store = _open(file)
        damaged = store.audit()
        if damaged:
            raise DataError(
                f"{len(damaged)} of {len(store)} rows do not match their checksum; restore the file, or delete it and "
                f"build it again; the first: {damaged[0]}",
                str(file),
            )
        yield f"{file}: {len(store)} rows, all match their checksums"


def _open(file: Path) -> _rust.TokenStore | _rust.TeacherStore:
    for ending, opener in _KINDS.items():
        if file.name.endswith(ending):
            return opener(file)
    raise DataError("is no store: its name ends neither in .tokens.arrow nor in teacher.arrow", str(file))
