"""What does quantisation cost a training step? Float, kdfast's formats, torch's and torchao's fake quantisation.

    python bench/qat.py                    # as large as the quickstart's student; writes bench/results/qat.{json,md}
    python bench/qat.py --quick --out DIR  # a small model, half a minute

Every contender trains a copy of one Llama: forward, backward of the micro-batches, one step of AdamW. All quantise the
same layers, every Linear with the output layer, and leave the embedding float. The output layer sees one position in
ten, as answers in a prompt. Contenders take turns in one process, in a random order in each round; a ratio is the
median over rounds of (contender / float of the same round). No self-distillation.

torchao is a contender if it is installed: `pip install torchao --no-deps` into the environment that runs this.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from kdfast.config.quant import QuantConfig
from kdfast.qat import apply_qat_to_model
from kdfast.quantized import plan_model

RESULTS = Path(__file__).parent / "results"
FLOAT = "float"
LIMIT = 1.25
"""The goal: a step under quantisation takes at most this multiple of a float step."""


class AbsentError(Exception):
    """This contender cannot run here; the message says why."""


@dataclass(frozen=True)
class Size:
    """The model and its step."""

    layers: int = 30
    hidden: int = 576
    intermediate: int = 1536
    heads: int = 9
    vocab: int = 49152
    rows: int = 8
    width: int = 256
    micro_batches: int = 1


QUICK = Size(layers=4, hidden=192, intermediate=512, heads=3, vocab=4096, rows=4, width=128)


def make_model(size: Size) -> nn.Module:
    """The same random Llama for every contender."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": size.vocab,
        "hidden_size": size.hidden,
        "intermediate_size": size.intermediate,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": max(size.heads // 3, 1),
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    return LlamaForCausalLM(LlamaConfig(**sizes))


def kdfast(name: str) -> Callable[[nn.Module], None]:
    """kdfast's fake quantisation of all Linear layers."""

    def prepare(model: nn.Module) -> None:
        config = QuantConfig(format=name, embeddings="same")  # type: ignore[arg-type]
        plan = plan_model(model, config)
        linear = [tensor.name for tensor in plan.tensors if not tensor.embedding]
        apply_qat_to_model(model, config, plan=plan.only(linear))

    return prepare


class TorchLinear(nn.Linear):
    """What people write with torch's own operator: scales from the weight, in each forward pass."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, D102
        weight = self.weight
        scale = (weight.detach().abs().amax(1) / 127).clamp(min=6.2e-5)
        zero = torch.zeros(len(weight), dtype=torch.int32)
        return F.linear(
            input, torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -127, 127), self.bias
        )


def torch_operator(model: nn.Module) -> None:
    """Every Linear layer with torch.fake_quantize_per_channel_affine."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = TorchLinear


def torchao(model: nn.Module) -> None:
    """Every Linear layer as torchao prepares it: int8, symmetric, per channel."""
    try:
        from torchao.quantization import quantize_
        from torchao.quantization.qat import IntxFakeQuantizeConfig, QATConfig
    except ImportError as error:
        raise AbsentError(f"{error}; pip install torchao --no-deps") from error
    weights = IntxFakeQuantizeConfig(torch.int8, "per_channel")
    quantize_(model, QATConfig(weight_config=weights, step="prepare"))


CONTENDERS: dict[str, Callable[[nn.Module], None]] = {
    FLOAT: lambda _: None,
    "kdfast int8_channel": kdfast("int8_channel"),
    "kdfast q8_0": kdfast("q8_0"),
    "kdfast q4_0": kdfast("q4_0"),
    "torch.fake_quantize_per_channel_affine": torch_operator,
    "torchao int8 per channel": torchao,
}


class Trainer:
    """One contender: its model and optimiser."""

    def __init__(self, size: Size, prepare: Callable[[nn.Module], None]) -> None:
        self.size = size
        self.model: Any = make_model(size)
        prepare(self.model)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5)

    def step(self, ids: Tensor) -> float:
        """Seconds of one optimiser step."""
        started = time.perf_counter()
        for rows in ids.chunk(self.size.micro_batches):
            hidden = self.model.model(input_ids=rows, use_cache=False).last_hidden_state
            answers = hidden[:, :-1:10].flatten(0, 1)
            F.cross_entropy(self.model.lm_head(answers), rows[:, 1::10].flatten()).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.perf_counter() - started


def measure(size: Size, rounds: int) -> dict[str, dict[str, Any]]:
    """Seconds of every contender in every round; one step of each before, that is not counted."""
    trainers: dict[str, Trainer] = {}
    found: dict[str, dict[str, Any]] = {}
    for name, prepare in CONTENDERS.items():
        try:
            trainers[name] = Trainer(size, prepare)
        except AbsentError as error:
            found[name] = {"absent": str(error)}
    draws = torch.Generator().manual_seed(1)
    times: dict[str, list[float]] = {name: [] for name in trainers}
    order = list(trainers)
    turns = random.Random(0)
    for number in range(rounds + 1):
        ids = torch.randint(size.vocab, (size.rows, size.width), generator=draws)
        turns.shuffle(order)
        for name in order:
            seconds = trainers[name].step(ids)
            if number:
                times[name].append(seconds)
    for name, seconds in times.items():
        ratios = [one / plain for one, plain in zip(seconds, times[FLOAT], strict=True)]
        found[name] = {
            "seconds": seconds,
            "median_s": statistics.median(seconds),
            "ratio": statistics.median(ratios),
        }
    return {name: found[name] for name in CONTENDERS}


def table(document: dict[str, Any]) -> str:
    """The document as Markdown."""
    machine, size = document["machine"], document["size"]
    lines = [
        "# The cost of quantisation in a training step",
        "",
        f"`python bench/qat.py` on {machine['cpu']} ({machine['threads']} thread(s)), torch {machine['torch']}.",
        f"A Llama of {size['layers']} layers, hidden size {size['hidden']}, vocabulary {size['vocab']}; a step reads",
        f"{size['rows']} rows of {size['width']} tokens in {size['micro_batches']} micro-batch(es).",
        f"{document['rounds']} rounds, contenders by turns. The goal of kdfast is a ratio of at most {LIMIT}, and no",
        "contender faster.",
        "",
        "| contender | median step, s | times float (median of rounds) |",
        "|---|---|---|",
    ]
    for name, one in document["contenders"].items():
        if "absent" in one:
            lines.append(f"| {name} | absent: {one['absent']} | |")
        else:
            lines.append(f"| {name} | {one['median_s']:.3f} | {one['ratio']:.3f} |")
    return "\n".join(lines) + "\n"


def machine(threads: int) -> dict[str, Any]:
    """What the figures were taken on and with."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor())
    try:
        ao = importlib.metadata.version("torchao")
    except importlib.metadata.PackageNotFoundError:
        ao = "absent"
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": threads,
        "torch": torch.__version__,
        "torchao": ao,
        "python": platform.python_version(),
    }


def main() -> None:
    """Measures and writes qat.json and qat.md."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--micro-batches", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a small model")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    size = QUICK if options.quick else Size()
    size = Size(**(vars(size) | {"micro_batches": options.micro_batches}))
    document = {
        "machine": machine(options.threads),
        "size": vars(size),
        "rounds": options.rounds,
        "contenders": measure(size, options.rounds),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "qat.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (options.out / "qat.md").write_text(table(document), encoding="utf-8")
    print(table(document))


if __name__ == "__main__":
    main()
