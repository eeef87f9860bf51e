"""How much of what quantisation breaks does QAT mend? One small fine-tuned student, Q4_0, arms of equal steps.

    python bench/qat_recovery.py --work DIR     # forty minutes on one core; writes bench/results/qat_recovery.*
    python bench/qat_recovery.py --replot       # table and plot again, from the results file
    python bench/qat_recovery.py --quick --work DIR --out DIR   # a tiny student; shows that it runs

The student is a Llama trained here, from random weights, on a closed smart home (recovery/world.py): a request in
English, one call or a short answer, no tools in the prompt. A student as small as this loses nothing by Q4_0, so its
columns are then spread (recovery/outliers.py): it computes the same, and Q4_0 costs it about what it costs a model of
135 million parameters. From it, as it was when its training ended, each arm spends the same steps on the same rows in
the same order, and ships Q4_0 (embedding Q8_0):

- float: trained on with cross-entropy, quantised afterwards;
- QAT with cross-entropy, with KL from the frozen float student, with both (weights 1 and 1).

Beside them: the float student itself, quantised at once, by kdfast and as `llama-quantize` does. The rate of each arm
is the best of a ladder, on one seed and on rows that nothing else is reported of. Seeds are orders of the rows. What
took minutes is kept under --work, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers

from recovery import llama_cpp
from recovery.report import write_report
from recovery.setting import QUICK, Setting
from recovery.trial import measure

RESULTS = Path(__file__).parent / "results" / "qat_recovery.json"


def machine() -> dict[str, Any]:
    """Where the numbers come from."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0].split(":")[1].strip() if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "kdfast": importlib.metadata.version("kdfast"),
        "xllamacpp": llama_cpp.version(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark, or plots again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/qat_recovery"), help="keeps what took minutes"
    )
    parser.add_argument("--out", type=Path, default=RESULTS.parent, help="folder of the results")
    parser.add_argument("--quick", action="store_true", help="a tiny student, a few seconds")
    parser.add_argument("--replot", action="store_true", help="table and plot from the results file")
    parser.add_argument("--arms-only", action="store_true", help="leave out int8, other lengths and spreads")
    parser.add_argument("--seeds", type=int, default=None, help="orders of the rows")
    asked = parser.parse_args(arguments)
    file = asked.out / RESULTS.name
    if not asked.replot:
        torch.set_num_threads(1)
        setting = QUICK if asked.quick else Setting()
        setting = replace(setting, seeds=asked.seeds) if asked.seeds else setting
        document = {"machine": machine()} | measure(setting, asked.work, arms_only=asked.arms_only)
        asked.out.mkdir(parents=True, exist_ok=True)
        if file.exists():
            document |= {key: value for key, value in json.loads(file.read_text()).items() if key == "note"}
        file.write_text(json.dumps(document, indent=1) + "\n")
    write_report(file)


if __name__ == "__main__":
    main()
