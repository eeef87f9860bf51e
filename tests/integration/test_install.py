"""`pip install .` and `maturin develop` give working commands in a bare virtual environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from made_run import write_run

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(sysconfig.get_path("scripts"))


def run(*command: str | Path, environment: dict[str, str]) -> str:
    result = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def not_sources(folder: str, names: list[str]) -> set[str]:
    """What `copytree` leaves out: built files anywhere, and at the top the folders that git ignores."""
    built = {name for name in names if name.endswith(".so")}
    top = {"target", ".venv", ".git", ".cache", "runs"} if Path(folder) == ROOT else set()
    return built | top


@pytest.mark.slow
@pytest.mark.parametrize("how", ["pip install", "maturin develop"])
def test_in_a_bare_environment(tmp_path: Path, how: str) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    commands = venv / "bin"
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "PYTHONHOME", "CONDA_PREFIX")
    } | {"VIRTUAL_ENV": str(venv)}
    # uv resolves and links the dependencies in seconds where pip takes minutes; it reads the same metadata
    uv = TOOLS / "uv"
    if how == "pip install":
        run(uv, "pip", "install", "--python", commands / "python", ".", environment=environment)
    else:
        # the checkout's own extension, built by `make`, must survive: work on a copy of the package
        checkout = tmp_path / "checkout"
        shutil.copytree(ROOT, checkout, ignore=not_sources)
        environment["CARGO_TARGET_DIR"] = str(ROOT / "target")
        develop = [
            TOOLS / "maturin",
            "develop",
            "--release",
            "--uv",
            "--manifest-path",
            checkout / "rust/py/Cargo.toml",
        ]
        environment["PATH"] = f"{TOOLS}{os.pathsep}{environment['PATH']}"
        run(*develop, environment=environment)
    assert run(commands / "kdfast", "--version", environment=environment).startswith("kdfast 0.")
    assert "CONFIG" in run(commands / "kdfast-train", "--help", environment=environment)
    shown = run(commands / "kdfast", "config", "show", "configs/quickstart.yaml", environment=environment)
    assert "num_steps" in shown
    page = run(commands / "kdfast", "report", write_run(tmp_path / "run"), environment=environment)
    assert "report.html" in page  # its templates are in the package
    call = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    code = f"import kdfast; print(kdfast.find_tool_calls({call!r})[0].name)"
    assert run(commands / "python", "-c", code, environment=environment) == "f\n"
