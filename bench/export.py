"""How fast is what ships? One student in torch and in llama.cpp, by turns.

    python bench/export.py --student runs/quickstart-llm/student --prompts .cache/quickstart-llm/data/validation.jsonl

Every contender reads the same prompts and generates the same number of tokens after each, greedily, batch 1, with a KV
cache, on the same threads, through the same interface as `kdfast measure`. In each round every contender answers one
prompt, in a random order; a ratio is the median over rounds of (torch fp32 / contender of the same round), so 2 means
twice as fast. The GGUF files are what `kdfast export --target gguf --type TYPE` writes of this student.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from kdfast.config.quant import QuantConfig
from kdfast.errors import ConfigError
from kdfast.export.gguf import write_gguf
from kdfast.export.shipped import shipped_weights
from kdfast.files import write_document, write_text_whole
from kdfast.llama_cpp import LlamaCppModel, version
from kdfast.pretrained import load_causal_lm
from kdfast.quantized import plan_model
from kdfast.recipes import loaded_model
from kdfast.recipes.requests import Settings
from kdfast.speed import Engine, SpeedOptions, TransformersEngine, describe_hardware, measure_prompt
from kdfast.speed.llama_cpp import LlamaCppEngine

RESULTS = Path(__file__).parent / "results"
PEER = "torch fp32"
TYPES = ("f16", "q8_0", "q4_0")
METRICS = {"ttft_ms": "time to the first token", "tpot_ms": "time per token after it"}


def engines(options: argparse.Namespace, folder: Path, stack: ExitStack) -> Iterator[tuple[str, Engine, int]]:
    """Name, engine and bytes of the weights of each contender."""
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        model: Any = load_causal_lm(options.student, dtype=dtype, error=ConfigError, name="student")
        yield f"torch {name}", TransformersEngine(model), sum(p.nbytes for p in model.parameters())
    for kind in TYPES:
        model = load_causal_lm(options.student, dtype=torch.float32, error=ConfigError, name="student")
        file = folder / f"{kind}.gguf"
        write_gguf(file, shipped_weights(model, None, kind), options.student, name="student")
        del model
        runtime = stack.enter_context(LlamaCppModel(file, context=4096, threads=options.threads))
        yield f"llama.cpp {kind}", LlamaCppEngine(runtime), file.stat().st_size


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All rounds of all contenders."""
    settings = Settings(prompts=options.prompts, threads=options.threads, device="cpu", limit=options.limit)
    loaded = loaded_model.load(options.student, settings)
    hardware = describe_hardware(torch.device("cpu"), torch.float32)
    limits = SpeedOptions(max_new_tokens=options.tokens, eos_ids=(), formats=loaded.formats)
    draws = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        contenders = list(engines(options, Path(folder), stack))
        samples: dict[str, list[dict[str, float]]] = {name: [] for name, _, _ in contenders}
        for number in range(-1, options.rounds):  # round -1 warms up
            prompt = loaded.prompts[number % len(loaded.prompts)]
            for name, engine, _ in draws.sample(contenders, len(contenders)):
                sample = measure_prompt(engine, prompt, loaded.tokenizer, limits)
                if number >= 0:
                    values = sample.values()
                    samples[name].append({metric: float(values[metric]) for metric in METRICS})  # type: ignore[arg-type]
        sizes = {name: size for name, _, size in contenders}
    return {
        "machine": {**hardware.to_json(), "xllamacpp": version()},
        "parameters": sum(p.numel() for p in loaded.model.parameters()),
        "quantised": len(plan_model(loaded.model, QuantConfig(format="q4_0")).tensors),
        "rounds": options.rounds,
        "tokens": options.tokens,
        "threads": options.threads,
        "prompt_tokens": [len(loaded.tokenizer.encode(prompt.text)) for prompt in loaded.prompts],
        "bytes": sizes,
        "samples": samples,
    }


def ratios(samples: dict[str, list[dict[str, float]]], name: str, metric: str) -> list[float]:
    """How many times as fast as the peer a contender is, round by round."""
    return [peer[metric] / one[metric] for peer, one in zip(samples[PEER], samples[name], strict=True)]


def _quartiles(values: Sequence[float]) -> str:
    low, _, high = statistics.quantiles(values, n=4)
    return f"**{statistics.median(values):.2f}** ({low:.2f} to {high:.2f})"


def markdown(document: dict[str, Any]) -> str:
    """The results as a page."""
    prompt = sorted(document["prompt_tokens"])
    lines = [
        "# The same student in torch and in llama.cpp",
        "",
        f"{document['parameters'] / 1e6:.0f} M parameters, {document['rounds']} rounds by turns, prompts of "
        f"{prompt[0]} to {prompt[-1]} tokens (median {statistics.median(prompt):.0f}), {document['tokens']} tokens "
        f"generated after each, {document['threads']} threads. `python bench/export.py` makes this page.",
        "",
        f"Machine: {document['machine']['key']}; torch {document['machine']['versions']['torch']}, xllamacpp "
        f"{document['machine']['xllamacpp']}; load {document['machine']['load_average']}.",
        "",
        f"Median of each round's ratio to {PEER}, with its quartiles: 2 = twice as fast.",
        "",
        "| engine | weights, MB | first token, ms | times as fast | each further token, ms | times as fast |",
        "|---|---|---|---|---|---|",
    ]
    for name, rows in document["samples"].items():
        cells = [name, f"{document['bytes'][name] / 1e6:.0f}"]
        for metric in METRICS:
            cells.append(f"{statistics.median(row[metric] for row in rows):.1f}")
            cells.append("1" if name == PEER else _quartiles(ratios(document["samples"], name, metric)))
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "The first token takes tokenising, reading the prompt and one step. A GGUF holds more than the weights: the "
        "tokenizer, and the chat template.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measures, and writes the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--student", type=Path, required=True, help="a student's Hugging Face directory")
    parser.add_argument("--prompts", type=Path, required=True, help="records, JSONL")
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--limit", type=int, default=24, help="prompts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    document = measure(options)
    write_document(options.out / "export.json", document)
    write_text_whole(options.out / "export.md", markdown(document))
    print((options.out / "export.md").read_text(encoding="utf-8"))
    print(json.dumps(document["bytes"]))


if __name__ == "__main__":
    main()
