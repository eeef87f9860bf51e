r"""Does `kdfast gate` pass a student against itself, and fail it when it is made slower, ten times out of ten?

    OMP_NUM_THREADS=1 python bench/gate_trials.py --model .cache/quickstart-llm/teacher \
        --prompts .cache/quickstart-llm/data/validation.jsonl

Each trial is a process of its own that runs the recipe of `kdfast gate`, with the trial's number as seed: the student
as candidate and as blessed model (A/A), or the same with an engine around the candidate's that idles `--slower` longer
at every step (prefill and each token). The trials of both kinds are run by turns. The student: MODEL with some of its
layers, evenly spread (`arch.layers`, by `build_student`), so that a trial takes about a minute on two cores;
`--layers 0` takes MODEL as it is.

A student that lost most of its layers calls no tool, so only the gates of time are evaluated; with a whole student
say `gates.enabled=[...]` behind the options. The results are written after each trial; `--resume` goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
TIME_GATES = "gates.enabled=[ttft_p50,ttft_p95,tps_p50,tps_p95]"


class SlowEngine:
    """An engine that takes longer than the one that it wraps.

    Args:
        engine: what does the work.
        slower: the share by which each step takes longer.
        clock: seconds.
        wait_until: returns when the clock shows this; the default keeps reading it, which is exact.
    """

    def __init__(
        self,
        engine: Any,
        slower: float,
        clock: Callable[[], float] = time.perf_counter,
        wait_until: Callable[[float], None] | None = None,
    ) -> None:
        self._engine, self._slower, self._clock = engine, slower, clock
        self._wait_until = wait_until or self._spin

    def reset(self) -> None:
        """As the engine does; no step."""
        self._engine.reset()

    def prefill(self, ids: Sequence[int]) -> None:
        """As the engine does, but slower."""
        started = self._clock()
        self._engine.prefill(ids)
        self._idle(started)

    def next(self) -> int:
        """As the engine does, but slower."""
        started = self._clock()
        token: int = self._engine.next()
        self._idle(started)
        return token

    def _idle(self, started: float) -> None:
        now = self._clock()
        self._wait_until(now + self._slower * (now - started))

    def _spin(self, moment: float) -> None:
        while self._clock() < moment:
            pass


def write_student(model: Path, layers: int, directory: Path) -> Path:
    """MODEL with so many of its layers, as a Hugging Face directory."""
    from kdfast.config import ArchConfig
    from kdfast.data.template import load_template
    from kdfast.student import build_student, save_student

    student = build_student(ArchConfig(init=str(model), layers=layers))
    template = load_template("hermes", model).source
    save_student(student, directory, tokenizer=model, chat_template=template, turn_end="<|im_end|>")
    return directory


def one_trial(options: argparse.Namespace) -> int:
    """One run of the gate in this process."""
    from kdfast.config import GatesConfig, load_section
    from kdfast.recipes.gate import GateRequest, Judging, gate

    student = options.one
    request = GateRequest(
        candidate=student,
        blessed=student,
        prompts=options.prompts,
        template="hermes",
        limit=options.limit,
        max_new_tokens=options.max_new_tokens,
        threads=options.threads,
        device="cpu",
        seed=options.seed,
    )
    judging = Judging(
        limits=load_section(GatesConfig, overrides=options.overrides or [TIME_GATES]), json=options.json
    )
    slower = options.slower
    return gate(
        request,
        judging,
        candidate_engine=None if slower == 0 else lambda engine: SlowEngine(engine, slower),
    )


def run_trial(options: argparse.Namespace, student: Path, seed: int, slower: float) -> dict[str, Any]:
    """One trial in a process of its own: what the gates said, and how long it took."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "gates.json"
        command = [
            sys.executable,
            __file__,
            "--one",
            str(student),
            "--seed",
            str(seed),
            "--json",
            str(result),
        ]
        for name in ("prompts", "limit", "max_new_tokens", "threads"):
            command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
        command += ["--slower", str(slower), *options.overrides]
        load, started = os.getloadavg()[0], time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started
        if done.returncode not in (0, 3):
            raise SystemExit(f"a trial could not be run:\n{done.stdout}{done.stderr}")
        report = json.loads(result.read_text(encoding="utf-8"))
    return {
        "seed": seed,
        "slower": slower,
        "exit_code": done.returncode,
        "gates": {
            gate["name"]: {key: gate[key] for key in ("status", "value", "reason")}
            for gate in report["results"]
        },
        "pairs": {name: one["pairs"] for name, one in report["context"]["paired"].items()},
        "hardware": report["context"]["candidate"]["hardware"]["key"],
        "load_before": load,
        "seconds": seconds,
    }


def markdown(result: dict[str, Any]) -> str:
    """The results for people."""
    trials = result["trials"]
    lines = ["# `kdfast gate` on a real student: itself, and itself made slower", ""]
    lines += [f"`python bench/gate_trials.py {result['arguments']}`", ""]
    for slower in sorted({trial["slower"] for trial in trials}):
        group = [trial for trial in trials if trial["slower"] == slower]
        failed = sum(trial["exit_code"] == 3 for trial in group)
        # exit code 0 is also that of "could not tell"
        told = sum(trial["exit_code"] == 0 and _all_told(trial) for trial in group)
        what = f"{slower:.0%} slower" if slower else "unchanged (A/A)"
        lines.append(f"- **{what}: failed {failed} of {len(group)}, passed {told} of {len(group)}**")
    lines += ["", *(f"Hardware: {name}." for name in sorted({trial["hardware"] for trial in trials})), ""]
    lines += [
        "Ratios are medians of candidate / blessed over the pairs, as the gate saw them.",
        "",
        "| candidate | seed | exit code | first token | each token | ttft_p50 | tps_p50 | p95s | pairs | load | s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for trial in sorted(trials, key=lambda trial: (trial["slower"], trial["seed"])):
        gates = trial["gates"]
        ratios = [
            f"{gates[name]['value']:.3f}" if name in gates and gates[name]["value"] else "-"
            for name in ("ttft_p50", "tps_p50")
        ]
        statuses = [gates[name]["status"] if name in gates else "-" for name in ("ttft_p50", "tps_p50")]
        tails = ", ".join(gates[name]["status"] for name in ("ttft_p95", "tps_p95") if name in gates)
        lines.append(
            f"| {trial['slower']:+.0%} | {trial['seed']} | {trial['exit_code']} | {' | '.join(ratios + statuses)}"
            f" | {tails} | {max(trial['pairs'].values(), default=0)} | {trial['load_before']:.1f}"
            f" | {trial['seconds']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _all_told(trial: dict[str, Any]) -> bool:
    """Whether the medians were decided, not left open."""
    return all(
        gate["status"] in ("passed", "skipped")
        for name, gate in trial["gates"].items()
        if name.endswith("p50")
    )


def write(result: dict[str, Any], out: Path) -> None:
    """The results file and its table."""
    out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    out.with_suffix(".md").write_text(markdown(result), encoding="utf-8")


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", metavar="gates.KEY=VALUE", help=f"default: {TIME_GATES}")
    parser.add_argument("--model", type=Path, help="a Hugging Face directory of the Llama family")
    parser.add_argument("--prompts", type=Path, required=True, help="records, JSONL")
    parser.add_argument("--layers", type=int, default=4, help="of the model's; 0 = all")
    parser.add_argument("--trials", type=int, default=10, help="of each kind")
    parser.add_argument("--slower", type=float, default=0.15)
    parser.add_argument("--limit", type=int, default=20, help="prompts; 0 = all")
    parser.add_argument("--max-new-tokens", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "gate_trials")
    parser.add_argument("--resume", action="store_true", help="go on where the results file ends")
    for hidden, kind in (("--one", Path), ("--json", Path), ("--seed", int)):
        parser.add_argument(hidden, type=kind, help=argparse.SUPPRESS)
    return parser


def main() -> int:
    """Runs the trials and writes bench/results/gate_trials.{json,md}."""
    options = arguments().parse_args()
    if options.one is not None:
        return one_trial(options)
    if options.model is None:
        raise SystemExit("--model is needed")
    said = " ".join(sys.argv[1:]).replace(" --resume", "")
    result: dict[str, Any] = {"arguments": said, "trials": []}
    saved = options.out.with_suffix(".json")
    if options.resume and saved.exists():
        result = json.loads(saved.read_text(encoding="utf-8"))
        if result["arguments"] != said:
            raise SystemExit(f"{saved} is of other arguments: {result['arguments']}")
    done = {(trial["seed"], trial["slower"]) for trial in result["trials"]}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        student = (
            write_student(options.model, options.layers, Path(folder) / "student")
            if options.layers
            else options.model
        )
        for seed in range(options.trials):
            for slower in (0.0, options.slower):
                if (seed, slower) not in done:
                    trial = run_trial(options, student, seed, slower)
                    result["trials"].append(trial)
                    print(
                        json.dumps(
                            {key: trial[key] for key in ("seed", "slower", "exit_code", "pairs", "seconds")}
                        ),
                        flush=True,
                    )
                    write(result, options.out)
    print(markdown(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
