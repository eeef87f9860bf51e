"""Which teacher store a run reads, told from names."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdfast.errors import ConfigError
from kdfast.recipes.first_look.stores import holds_stores, not_taught, only_store


def test_the_only_store(tmp_path: Path) -> None:
    assert not holds_stores(tmp_path)
    with pytest.raises(ConfigError, match="exactly one, found 0 in "):
        only_store(tmp_path)
    file = tmp_path / "0123.teacher.arrow"
    file.touch()
    assert holds_stores(tmp_path)
    assert only_store(tmp_path) == only_store(file) == file
    (tmp_path / "4567.teacher.arrow").touch()
    with pytest.raises(ConfigError, match="exactly one, found 2 in "):
        only_store(tmp_path)
    assert str(not_taught(tmp_path)).endswith(f"run `kdfast teach CONFIG`: {tmp_path}")
