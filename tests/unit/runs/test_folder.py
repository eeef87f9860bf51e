"""The run folder: every file name once, no torch, and no second run in it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import kdfast
from kdfast.runs.folder import RunFolder

NAMES = (
    "config.yaml",
    "metrics.jsonl",
    "speed.json",
    "gates.json",
    "quantization.json",
    "preflight.json",
    "report.html",
    "checkpoints",
    "student",
)


def test_the_names(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    paths = (folder.config, folder.metrics, folder.speed, folder.gates, folder.quantization, folder.preflight)
    assert tuple(path.name for path in (*paths, folder.report, folder.checkpoints, folder.student)) == NAMES
    assert folder.evaluation("before") == tmp_path / "evaluation_before.json"
    assert not folder.holds_run
    folder.config.write_text("")
    assert folder.holds_run


def test_no_other_module_joins_a_path_with_one_of_the_names() -> None:
    package = Path(kdfast.__file__).parent
    names = "|".join(map(re.escape, NAMES))
    joined = re.compile(rf"""/ f?["']({names}|evaluation_[^"']*)["']""")
    found = [
        f"{file.relative_to(package)}: {line.strip()}"
        for file in sorted(package.rglob("*.py"))
        if file.relative_to(package) != Path("runs/folder.py")
        for line in file.read_text(encoding="utf-8").splitlines()
        if joined.search(line) and ">>>" not in line
    ]
    assert found == []


def test_it_loads_no_torch() -> None:
    code = "import sys, kdfast.runs.folder, kdfast.runs.reading, kdfast.recipes.requests, kdfast.batch"
    heavy = "{'torch', 'transformers', 'numpy', 'pyarrow', 'kdfast._rust'}"
    check = f"loaded = {heavy} & sys.modules.keys(); assert not loaded, loaded"
    subprocess.run([sys.executable, "-c", f"{code}; {check}"], check=True)
