"""The Rust core's functions with the options that a config chooses, at the config's defaults."""

from pathlib import Path
from typing import Any

from kdfast import _rust
from kdfast.config.data import DataConfig
from kdfast.scoring import FORMATS

_READING = ("on_error", "max_rejected_fraction", "max_line_bytes", "allow_reasoning", "threads")
_READ = {name: getattr(DataConfig, name) for name in _READING}
_BUILD = _READ | {"supervise": DataConfig.supervise, "prefix_tokens": DataConfig.prefix_tokens}
_BUILD |= {
    "formats": FORMATS,
    "invalid_calls": DataConfig.invalid_calls,
    "content_tokens": DataConfig.content_tokens,
    "record_k": 32,
}


def read_jsonl(path: Path, **options: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """`_rust.read_jsonl`."""
    return _rust.read_jsonl(path, **(_READ | {"lines": "records"} | options))


def build_store(
    path: Path,
    directory: Path,
    tokenizer: _rust.Tokenizer,
    template: _rust.ChatTemplate,
    **options: Any,
) -> _rust.BuildReport:
    """`_rust.TokenStore.build`."""
    return _rust.TokenStore.build(path, directory, tokenizer, template, **(_BUILD | options))


def collate(*arguments: Any, threads: int = DataConfig.threads) -> dict[str, Any]:
    """`_rust.collate`."""
    return _rust.collate(*arguments, threads=threads)
