"""Keys of older versions: run folders that they made still open."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdfast.config import config_from_dict, load_config
from kdfast.config.config import SECTIONS
from kdfast.config.retired import RETIRED
from kdfast.errors import ConfigError

BASE = {
    "arch": {"init": "models/small"},
    "data": {"train": "train.jsonl", "tokenizer": "models/small"},
    "io": {"run_dir": "runs/first"},
}


def test_the_value_that_is_now_always_so_is_dropped_without_a_word() -> None:
    config = config_from_dict(BASE | {"kd": {"fused": True}})
    assert config == config_from_dict(BASE)
    assert "kd.fused" not in config.origins
    assert "fused" not in config.to_dict()["kd"]


@pytest.mark.parametrize("value", ["false", "null", "1", "'true'"])
def test_any_other_value_is_refused_with_the_remedy_and_its_place(tmp_path: Path, value: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"kd:\n  fused: {value}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^kd\.fused: retired; .*remove the key, got") as caught:
        load_config(path)
    assert caught.value.__notes__ == [f"{path}:2"]


def test_a_retired_key_is_no_key() -> None:
    for name in RETIRED:
        section, key = name.split(".")
        assert key not in SECTIONS[section].names()
