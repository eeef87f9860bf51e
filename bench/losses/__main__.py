"""Loss and gradients from hidden states: kdfast against what people use, in one interleaved run.

    python -m bench.losses --distillkit DIR

Every contender gets the same padded batch at the output layer and leaves gradients at the hidden states and at the
weight. Those that know nothing of supervised rows go through all positions and mask; kdfast picks the rows. Each
case has processes of its own: one for each contender's peak memory, value and gradients (checked against float64),
and one in which all contenders run in turns, in a random order in each round.

At the smallest N and V everybody runs; one that was there neither within --leave-out times the fastest peer's time nor
the smallest peer is left out of the larger cases. Results go to bench/results/losses.{json,md,svg}, written anew after
each case. GPU speed has not been measured: --device cuda is there for whoever has one.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from bench.losses.cases import LOSSES, Case, matrix
from bench.losses.contenders import AbsentError
from bench.losses.machine import machine, versions
from bench.losses.measure import ALL, Footprint, Setting, footprint_of, reference_of, times_of
from bench.losses.plot import plot
from bench.losses.reference import Reference, distance
from bench.losses.report import write_markdown
from bench.losses.results import left_out

QUICK = {"positions": [64], "hidden": [32], "vocab": [1024]}


def measure_case(case: Case, names: list[str], setting: Setting) -> dict[str, dict[str, Any]]:
    """All contenders at one case; an entry holds either figures or why there are none."""
    right = reference_of(case, setting)
    entries: dict[str, dict[str, Any]] = {}
    for name in names:
        found = footprint_of(name, case, setting)
        entries[name] = {"absent": found} if isinstance(found, str) else _checked(name, found, right)
    there = [name for name, entry in entries.items() if "absent" not in entry]
    times = times_of(there, case, setting)
    for name in there:
        entries[name] |= {"absent": times} if isinstance(times, str) else {"seconds": times[name]}
    return entries


def _checked(name: str, found: Footprint, right: Reference | str) -> dict[str, Any]:
    entry: dict[str, Any] = {"peak_bytes": found.peak_bytes}
    value = ALL[name].value
    if isinstance(right, str) or found.grad_hidden is None or found.grad_weight is None:
        return entry
    entry["value_error"] = abs(found.value / right.values[value] - 1)
    if value != "truncated":  # another loss has other gradients
        pairs = ((found.grad_hidden, right.grad_hidden), (found.grad_weight, right.grad_weight))
        entry["gradient_error"] = max(distance(*pair) for pair in pairs)
    return entry


def import_everything(losses: list[str], distillkit: Path | None) -> None:
    """Imports what contenders need once, here, so that processes forked from this one have it."""
    for contender in ALL.values():
        for loss in set(contender.losses) & set(losses):
            try:
                contender.load(loss, distillkit)
            except AbsentError as error:
                print(f"{contender.name}: absent: {error}", flush=True)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measures all cases; the document is written after each."""
    setting = Setting(
        device=options.device,
        threads=options.threads,
        distillkit=options.distillkit,
        rounds=options.rounds,
        seconds=options.seconds,
        least_rounds=min(options.rounds, options.least_rounds),
    )
    import_everything(options.losses, options.distillkit)
    document: dict[str, Any] = {
        "machine": machine(options.device, options.threads),
        "versions": versions(options.distillkit),
        "setting": {key: value for key, value in asdict(setting).items() if key != "distillkit"},
        "cases": [],
    }
    file = options.out / "losses.json"
    if options.resume and file.exists():
        document["cases"] = json.loads(file.read_text(encoding="utf-8"))["cases"]
    taken = [{field.name: one[field.name] for field in fields(Case)} for one in document["cases"]]
    for case in matrix(options.losses, options.positions, options.hidden, options.vocab):
        if asdict(case) in taken:
            continue
        done, like = document["cases"], {"loss": case.loss, "hidden": case.hidden, "every": case.every}
        absent = left_out(done, like, options.leave_out)
        names = [
            name for name, contender in ALL.items() if case.loss in contender.losses and name not in absent
        ]
        entries = {name: {"absent": reason} for name, reason in absent.items()} | measure_case(
            case, names, setting
        )
        done.append({**asdict(case), "supervised": case.supervised, "contenders": entries})
        write(document, options.out)
        print(
            case.name,
            {name: entry.get("seconds", entry.get("absent")) for name, entry in entries.items()},
            flush=True,
        )
    return document


def write(document: dict[str, Any], folder: Path) -> None:
    """The document, the page and the picture."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "losses.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    write_markdown(document, folder / "losses.md")
    if not plot(document, folder / "losses.svg"):
        print("no picture: matplotlib is not installed", flush=True)


def main() -> None:
    """Reads the command line, measures, writes."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.losses",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--distillkit", type=Path, help="folder of a checkout of DistillKit (it is in no registry)"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--losses", nargs="+", choices=list(LOSSES), default=list(LOSSES))
    parser.add_argument(
        "--positions", type=int, nargs="+", default=[1024, 4096], help="N of the padded batch"
    )
    parser.add_argument("--hidden", type=int, nargs="+", default=[256, 576], help="D")
    parser.add_argument("--vocab", type=int, nargs="+", default=[49152, 128256], help="V")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="no more rounds of one contender than fit into this"
    )
    parser.add_argument("--least-rounds", type=int, default=2, help="but at least so many")
    parser.add_argument("--leave-out", type=float, default=1.25, help="0 = everybody everywhere")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results")
    parser.add_argument("--resume", action="store_true", help="add to losses.json what it lacks")
    parser.add_argument("--quick", action="store_true", help="one tiny size: a check that everything runs")
    parser.add_argument("--report", action="store_true", help="write page and picture again from losses.json")
    options = parser.parse_args()
    if options.report:
        write(json.loads((options.out / "losses.json").read_text(encoding="utf-8")), options.out)
        return
    if options.quick:
        vars(options).update(QUICK)
    run(options)


if __name__ == "__main__":
    main()
