"""Which teacher store a training run reads, as far as the names of files tell."""

from __future__ import annotations

from pathlib import Path

from kdfast.errors import ConfigError

_PATTERN = "*.teacher.arrow"


def only_store(path: Path) -> Path:
    """The teacher store of a config that names no teacher.

    Args:
        path: `teacher.store`: a store, or a directory with exactly one.

    Raises:
        ConfigError: there is none, or more than one.

    Example:
        >>> only_store(Path("nowhere"))
        Traceback (most recent call last):
        ...
        kdfast.errors.ConfigError: teacher.store: no such file or directory (check the path): nowhere
    """
    if not path.exists():
        raise ConfigError(f"teacher.store: no such file or directory (check the path): {path}")
    files = sorted(path.glob(_PATTERN)) if path.is_dir() else [path]
    if len(files) != 1:
        raise ConfigError(
            f"teacher.store: must be a teacher store, or a directory with exactly one, found {len(files)} in {path}"
        )
    return files[0]


def holds_stores(directory: Path) -> bool:
    """Whether `kdfast teach` has begun a store in a directory."""
    return any(directory.glob(_PATTERN))


def not_taught(directory: Path) -> ConfigError:
    """The error for a directory without the store of the config's teacher."""
    return ConfigError(
        "teacher.store: holds nothing of this teacher and these settings; run `kdfast teach CONFIG`: "
        f"{directory}"
    )
