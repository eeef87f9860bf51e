"""Two builds of kdfast against each other, in one interleaved run.

    python bench/builds.py OLD_PYTHON_DIR NEW_PYTHON_DIR --out builds.json

Each folder holds a `kdfast` package with its compiled `_rust`. Each build has one child process that lives through the
whole run, so that no start-up is timed. In each round every workload runs once in the old build and once in the new
one; which of them is first alternates. The ratios new/old of the rounds give a median and a bound: with 95 %
confidence the median is not above it. A bound below 1.02 says "not slower by more than 2 %". The inputs are made here,
seeded; both builds must give the same answers. One thread each.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from data_path import machine, write_records

TEXTS, ROWS, BATCH, SHAPES = 600, 400, 16, (512, 1024, 2048)
CLOCKS = ("cpu", "wall")
Workload = Callable[[], int]


# ------------------------------------------------------------------ inputs, made once by the parent


def tool(name: str, rng: random.Random) -> dict[str, Any]:
    """A tool with a few parameters; some schemas have a keyword that is checked the slow way (`minimum`)."""
    kinds = [
        {"type": "string"},
        {"type": "number"},
        {"type": "string", "enum": ["celsius", "fahrenheit"]},
        {"type": "array", "items": {"type": "string"}},
        {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]},
    ]
    properties = {f"argument_{n}": rng.choice(kinds) for n in range(rng.randint(1, 5))}
    limit = {"type": "integer", "minimum": 0} if rng.random() < 0.1 else {"type": "integer"}
    parameters = {
        "type": "object",
        "properties": {**properties, "limit": limit},
        "required": list(properties),
    }
    return {"name": name, "description": "Looks something up.", "parameters": parameters}


def value(schema: dict[str, Any], rng: random.Random) -> Any:
    """A value for a parameter's schema."""
    if "enum" in schema:
        return rng.choice(schema["enum"])
    words = ["Paris", "café", "a longer text, such as a question: why?", 'with "quotes"\n', "数据"]
    made: dict[str, Callable[[], Any]] = {
        "string": lambda: rng.choice(words),
        "number": lambda: round(rng.uniform(-1e3, 1e3), 3),
        "integer": lambda: rng.randint(0, 1000),
        "array": lambda: rng.choices(words, k=rng.randint(0, 4)),
        "object": lambda: {"x": rng.randint(0, 9)},
    }
    return made[schema["type"]]()


def answer(tools: Sequence[dict[str, Any]], rng: random.Random) -> str:
    """Prose and one to three calls; of every fourth call an argument is missing, some are not tagged or cut off."""
    calls = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        called = rng.choice(tools)
        properties = called["parameters"]["properties"]
        arguments = {name: value(schema, rng) for name, schema in properties.items()}
        if rng.random() < 0.25:
            del arguments[rng.choice(list(arguments))]
        call = json.dumps({"name": called["name"], "arguments": arguments}, ensure_ascii=rng.random() < 0.1)
        calls.append(call if rng.random() < 0.1 else f"<tool_call>\n{call}\n</tool_call>")
    text = "I will look that up for you.\n" + "\n".join(calls)
    return text[: rng.randrange(len(text))] if rng.random() < 0.05 else text


def write_inputs(folder: Path) -> None:
    """`texts.json`, `records.jsonl` and `tokenizer.json`, a byte-level BPE trained on them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    rng = random.Random(0)
    sets = [[tool(f"tool_{n}_{m}", rng) for m in range(rng.randint(1, 4))] for n in range(TEXTS // 4)]
    texts = [{"text": answer(tools, rng), "tools": tools} for tools in sets for _ in range(4)]
    (folder / "texts.json").write_text(json.dumps(texts))
    write_records(folder / "records.jsonl", ROWS)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2048,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    lines = (folder / "records.jsonl").read_text(encoding="utf-8").splitlines()
    tokenizer.train_from_iterator([each["text"] for each in texts] + lines, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))


# ------------------------------------------------------------------ a child: one build's workloads, by command


def workloads(folder: Path) -> dict[str, Workload]:
    """What is timed. Each gives a number that must be the same in both builds."""
    from kdfast import ToolCallStream, ToolSchema, find_tool_calls, is_valid_tool_json
    from kdfast._rust import Tokenizer

    texts = json.loads((folder / "texts.json").read_text())
    tokenizer = Tokenizer.from_file(folder / "tokenizer.json")
    answers = [(each["text"], ToolSchema(each["tools"])) for each in texts]
    pieces = [[tokenizer.token_bytes(token) for token in tokenizer.encode(text)] for text, _ in answers]
    streamed = [(schema, each) for (_, schema), each in zip(answers, pieces, strict=True)]

    def stream() -> int:
        ends = 0
        for schema, tokens in streamed:
            feed = ToolCallStream(schema).feed
            ends += next((n for n, token in enumerate(tokens) if feed(token)), -1)
        return ends

    return {
        "find": lambda: sum(len(find_tool_calls(text)) for text, _ in answers),
        "find + validate": lambda: sum(is_valid_tool_json(text, schema) for text, schema in answers),
        "stream, token by token": stream,
        "JSONL to batches": lambda: batches(folder),
    }


def batches(folder: Path) -> int:
    """The tokens of all batches of a dataset whose store is built anew."""
    from kdfast.data import KDDataset, collate_kd_batch

    cache = Path(tempfile.mkdtemp(dir=folder))
    dataset = KDDataset(
        folder / "records.jsonl", folder / "tokenizer.json", shapes=SHAPES, cache=cache, threads=1
    )
    rows = range(len(dataset))
    parts = (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))
    tokens = sum(int(collate_kd_batch(dataset.__getitems__(part))["attention_mask"].sum()) for part in parts)
    shutil.rmtree(cache)
    return tokens


def serve(package: Path, folder: Path) -> None:
    """Reads `[workload, passes]` a line and answers with what the passes took, until the input ends."""
    import torch

    import kdfast

    torch.set_num_threads(1)
    if package.resolve() not in Path(kdfast.__file__).resolve().parents:
        raise SystemExit(f"kdfast was imported from elsewhere: {kdfast.__file__}")
    known = workloads(folder)
    print(json.dumps(list(known)), flush=True)
    for line in sys.stdin:
        name, passes = json.loads(line)
        cpu, wall = time.process_time(), time.perf_counter()
        said = [known[name]() for _ in range(passes)]
        took = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        print(json.dumps({**took, "said": said[0]}), flush=True)


class Build:
    """A build's child process."""

    def __init__(self, package: Path, folder: Path) -> None:
        threads = {"RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self.child = subprocess.Popen(
            [sys.executable, __file__, str(package), str(folder), "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **threads, "PYTHONPATH": str(package), "PYTHONHASHSEED": "0"},
        )
        self.workloads: list[str] = self.answer()

    def answer(self) -> Any:
        """The child's next line."""
        line = self.child.stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise SystemExit(f"a build's process ended with status {self.child.wait()}")
        return json.loads(line)

    def run(self, workload: str, passes: int) -> dict[str, float]:
        """What so many passes took, and what they said."""
        print(json.dumps([workload, passes]), file=self.child.stdin, flush=True)
        answer: dict[str, float] = self.answer()
        return answer


# ------------------------------------------------------------------ the parent: rounds and ratios


def passes_for(build: Build, workload: str, seconds: float) -> int:
    """How many passes take about `seconds`."""
    passes, took = 1, build.run(workload, 1)["wall"]
    while took < seconds / 2:
        passes *= 2
        took = build.run(workload, passes)["wall"]
    return max(1, round(passes * seconds / took))


def compare(old: Build, new: Build, workload: str, passes: int, first: bool) -> dict[str, dict[str, float]]:
    """One pair of runs; `first`: the old build goes first."""
    builds = {"old": old, "new": new}
    took = {name: builds[name].run(workload, passes) for name in (builds if first else reversed(builds))}
    if took["old"]["said"] != took["new"]["said"]:
        raise SystemExit(f"{workload}: the builds do not agree: {took}")
    return took


def bound(ratios: Sequence[float], resamples: int = 10_000) -> float:
    """Upper 95 % bound of the median: the 95th percentile of the medians of resamples."""
    rng = random.Random(0)
    medians = sorted(statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(resamples))
    return medians[int(0.95 * resamples)]


def summary(pairs: Sequence[dict[str, dict[str, float]]], clock: str) -> dict[str, Any]:
    """The paired ratios of one workload by one clock."""
    ratios = [pair["new"][clock] / pair["old"][clock] for pair in pairs]
    seconds = {name: statistics.median(pair[name][clock] for pair in pairs) for name in ("old", "new")}
    return {**seconds, "ratio": statistics.median(ratios), "bound": bound(ratios), "ratios": ratios}


def table(results: dict[str, dict[str, Any]]) -> list[str]:
    """The summaries as Markdown."""
    lines = ["| workload | old ms | new ms | CPU new/old | at most | wall new/old | at most |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name, found in results.items():
        cpu, wall = (found[clock] for clock in CLOCKS)
        old, new = (cpu[build] / found["passes"] * 1e3 for build in ("old", "new"))
        ratios = " | ".join(f"{each[key]:.3f}" for each in (cpu, wall) for key in ("ratio", "bound"))
        lines.append(f"| {name} | {old:.2f} | {new:.2f} | {ratios} |")
    return lines


def main() -> None:
    """Runs both builds and prints the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path, help="folder with the old kdfast package")
    parser.add_argument("new", type=Path, help="folder with the new kdfast package")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each workload in each round and build")
    parser.add_argument("--out", type=Path, help="also write all samples there, as JSON")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.old, options.new)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder)
        old, new = (Build(package.resolve(), folder) for package in (options.old, options.new))
        passes = {workload: passes_for(old, workload, options.seconds) for workload in old.workloads}
        pairs: dict[str, list[dict[str, dict[str, float]]]] = {workload: [] for workload in passes}
        for number in range(-1, options.rounds):  # round -1 warms up
            for workload, count in passes.items():
                pair = compare(old, new, workload, count, number % 2 == 0)
                pairs[workload] += [pair] * (number >= 0)
        for build in (old, new):
            build.child.communicate()
    results = {
        workload: {"passes": passes[workload], **{clock: summary(found, clock) for clock in CLOCKS}}
        for workload, found in pairs.items()
    }
    if options.out:
        document = {"machine": machine(), "rounds": options.rounds, "workloads": results}
        options.out.write_text(json.dumps(document, indent=1) + "\n")
    print(
        f"{options.rounds} rounds, medians of a pass and of the paired ratios; 95 % bounds of the medians.\n"
    )
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
