"""JSONL -> padded batches: kdfast against what people use, in one interleaved run.

    python bench/data_path.py --tokenizer .cache/quickstart-llm/teacher --rounds 5

Every candidate reads the same file of plain prompts and answers, tokenises both parts apart, masks the prompt
and pads batches of 16 rows to the smallest of four shapes. Each round runs every candidate once, in a fresh
process, in a random order; what is timed begins after the imports. One thread each. kdfast delivers 15 fields with
spans and masks, the others three.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

BATCH, SHAPES = 16, (256, 512, 1024, 2048)


def write_records(path: Path, rows: int) -> None:
    """Synthetic tool-calling records with the length profile of an agent's log; seeded."""
    rng = random.Random(0)
    words = ["the", "tool", "returns", "weather", "city", "list", "of", "results", "for", "user", "id", "42"]
    words += ['{"a":', "1}", "café", "naïve", "数据", "please", "call"]
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            prompt = " ".join(rng.choice(words) for _ in range(rng.randint(60, 500)))
            call = {
                "name": "lookup",
                "arguments": {"query": " ".join(rng.choices(words, k=8)), "limit": number},
            }
            answer = f"<tool_call>\n{json.dumps(call)}\n</tool_call>"
            file.write(json.dumps({"prompt": prompt, "teacher_text": answer}, ensure_ascii=False) + "\n")


def shape_of(length: int) -> int:
    """The smallest shape that holds a row."""
    return next(shape for shape in SHAPES if shape >= length)


def kdfast_rows(file: Path, tokenizer: Path, cache: Path) -> Iterator[int]:
    """kdfast; yields the tokens of each batch."""
    from kdfast.data import KDDataset, collate_kd_batch

    dataset = KDDataset(file, tokenizer, shapes=SHAPES, cache=cache, threads=1)
    for start in range(0, len(dataset), BATCH):
        rows = list(range(start, min(start + BATCH, len(dataset))))
        batch = collate_kd_batch(dataset.__getitems__(rows))
        yield int(batch["attention_mask"].sum())


def datasets_rows(file: Path, tokenizer: Path, cache: Path) -> Iterator[int]:
    """datasets + transformers + the Hugging Face collator."""
    from datasets import load_dataset
    from transformers import AutoTokenizer, DataCollatorForSeq2Seq

    encoder = AutoTokenizer.from_pretrained(tokenizer)
    encoder.pad_token = encoder.pad_token or encoder.eos_token

    def encode(record: dict[str, str]) -> dict[str, list[int]]:
        prompt = encoder(record["prompt"], add_special_tokens=False)["input_ids"]
        answer = [
            *encoder(record["teacher_text"], add_special_tokens=False)["input_ids"],
            encoder.eos_token_id,
        ]
        ids = prompt + answer
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [-100] * len(prompt) + answer}

    rows = load_dataset("json", data_files=str(file), split="train", cache_dir=str(cache))
    rows = rows.map(encode, remove_columns=rows.column_names)
    collator = DataCollatorForSeq2Seq(encoder, padding="max_length", max_length=SHAPES[-1])
    for start in range(0, len(rows), BATCH):
        part = [rows[n] for n in range(start, min(start + BATCH, len(rows)))]
        collator.max_length = shape_of(max(len(row["input_ids"]) for row in part))
        yield int(collator(part)["attention_mask"].sum())


def glue_rows(file: Path, tokenizer: Path, parse: Callable[[bytes], dict[str, str]]) -> Iterator[int]:
    """The fastest wheels glued by hand: a JSON parser + fastokens + numpy."""
    import fastokens
    import numpy as np

    encoder = fastokens.Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    encoder.enable_segment_cache(64 * 1024 * 1024)
    end = encoder.token_to_id("<|im_end|>")
    part: list[tuple[list[int], list[int]]] = []

    def batch() -> int:
        length = shape_of(max(len(prompt) + len(answer) for prompt, answer in part))
        ids = np.zeros((len(part), length), np.int64)
        mask = np.zeros((len(part), length), np.int64)
        labels = np.full((len(part), length), -100, np.int64)
        for row, (prompt, answer) in enumerate(part):
            stop = len(prompt) + len(answer)
            ids[row, : len(prompt)], ids[row, len(prompt) : stop] = prompt, answer
            mask[row, :stop], labels[row, len(prompt) - 1 : stop - 1] = 1, answer
        return int(mask.sum())

    with file.open("rb") as lines:
        for line in lines:
            record = parse(line)
            prompt = encoder.encode(record["prompt"], add_special_tokens=False).ids
            answer = encoder.encode(record["teacher_text"], add_special_tokens=False).ids
            part.append((prompt, [*answer, end]))
            if len(part) == BATCH:
                yield batch()
                part.clear()
    if part:
        yield batch()


def orjson_rows(file: Path, tokenizer: Path, cache: Path) -> Iterator[int]:
    """orjson + fastokens + numpy."""
    import orjson

    return glue_rows(file, tokenizer, orjson.loads)


def msgspec_rows(file: Path, tokenizer: Path, cache: Path) -> Iterator[int]:
    """msgspec + fastokens + numpy."""
    import msgspec

    return glue_rows(file, tokenizer, msgspec.json.Decoder().decode)


CANDIDATES = {
    "kdfast, first run": kdfast_rows,
    "kdfast, later runs": kdfast_rows,
    "datasets + transformers + HF collator": datasets_rows,
    "orjson + fastokens + numpy": orjson_rows,
    "msgspec + fastokens + numpy": msgspec_rows,
}


def run_one(name: str, file: Path, tokenizer: Path) -> None:
    """One candidate in this process; prints what it took as JSON."""
    import fastokens  # noqa: F401 - imported beforehand in every process, so that it weighs on none
    import numpy as np  # noqa: F401
    import torch

    if name.startswith("kdfast"):
        import kdfast.data
    elif name.startswith("datasets"):
        import datasets
        import transformers  # noqa: F401

        datasets.disable_progress_bars()
    torch.set_num_threads(1)
    cache = Path(tempfile.mkdtemp()) if name != "kdfast, later runs" else file.parent / "warm"
    if name == "kdfast, later runs":
        kdfast.data.KDDataset(file, tokenizer, shapes=SHAPES, cache=cache, threads=1)
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    tokens = sum(CANDIDATES[name](file, tokenizer, cache))
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if name != "kdfast, later runs":
        shutil.rmtree(cache)
    print(json.dumps({"seconds": seconds, "cpu": cpu, "tokens": tokens, "peak_mb": after.ru_maxrss / 1024}))


def machine() -> dict[str, str | int]:
    """What the figures were taken on."""
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    return {
        "cpu": cpu,
        "cores": os.cpu_count() or 0,
        "system": platform.system(),
        "python": platform.python_version(),
    }


def main() -> None:
    """Runs all candidates and writes bench/results/data_path.{json,md}."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        run_one(options.one[0], Path(options.one[1]), options.tokenizer)
        return
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in CANDIDATES}
    environment = {
        **os.environ,
        "RAYON_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "records.jsonl"
        write_records(file, options.rows)
        size = file.stat().st_size
        for number in range(options.rounds):
            for name in random.Random(number).sample(list(CANDIDATES), len(CANDIDATES)):
                command = [
                    sys.executable,
                    __file__,
                    "--tokenizer",
                    str(options.tokenizer),
                    "--one",
                    name,
                    str(file),
                ]
                result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
                samples[name].append(json.loads(result.stdout.splitlines()[-1]))
                print(f"round {number + 1}: {name}: {samples[name][-1]}", flush=True)
    report(samples, size, options.rows)


def report(samples: dict[str, list[dict[str, float]]], size: int, rows: int) -> None:
    """Medians, and the ratio to kdfast's first run pair by pair."""
    base = [sample["cpu"] for sample in samples["kdfast, first run"]]
    lines = [
        "| candidate | CPU s | wall s | tokens per CPU s | peak MB | CPU time / kdfast's first run |",
        "|---|---|---|---|---|---|",
    ]
    for name, runs in samples.items():
        cpu, wall, peak = (
            statistics.median(run[key] for run in runs) for key in ("cpu", "seconds", "peak_mb")
        )
        ratio = statistics.median(run["cpu"] / b for run, b in zip(runs, base, strict=True))
        rate = runs[0]["tokens"] / cpu
        lines.append(f"| {name} | {cpu:.2f} | {wall:.2f} | {rate:,.0f} | {peak:.0f} | {ratio:.2f} |")
    head = f"{rows} records, {size / 1e6:.1f} MB, {len(base)} interleaved rounds, medians, one thread each."
    head += f"\n\n{machine()}"
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "data_path.md").write_text(
        f"# JSONL to padded batches\n\n{head}\n\n" + "\n".join(lines) + "\n"
    )
    document = {"machine": machine(), "rows": rows, "bytes": size, "samples": samples}
    (results / "data_path.json").write_text(json.dumps(document, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
