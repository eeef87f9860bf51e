"""Do exports do what was trained? Small students of every family, trained briefly, exported, and compared in llama.cpp.

    python bench/export_parity.py                    # 20 minutes; writes bench/results/export_parity.{json,md}
    python bench/export_parity.py --also RUN RUN     # and the students of these runs

Each student is trained from random weights on made-up tool calls in the Hermes format, with several calls at once,
results of tools and small talk among them; half of them under quantisation. A random model has no likeliest token to
speak of, so it would prove little. Then `kdfast export` does the rest: this file only collects what its manifests say.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from kdfast.config import Config, config_from_dict
from kdfast.files import write_document, write_text_whole
from kdfast.llama_cpp import version
from kdfast.recipes.export.first_checks import look_before_exporting
from kdfast.recipes.export.request import ExportRequest
from kdfast.recipes.export.run import export, failed_folder
from kdfast.recipes.train.run import train
from kdfast.speed import describe_hardware

RESULTS = Path(__file__).parent / "results"
VOCABULARY = 1024
SHAPES = [256, 512]
CITIES = (
    "Paris",
    "Rome",
    "Oslo",
    "Lima",
    "Cairo",
    "Quito",
    "Tokyo",
    "Delhi",
    "Bonn",
    "Turin",
    "Köln",
    "São Paulo",
)
PROPERTIES = {
    "city": {"type": "string", "description": "Its name."},
    "days": {"type": "integer", "minimum": 1},
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"The {what} of a city.",
            "parameters": {"type": "object", "properties": PROPERTIES, "required": ["city", "days"]},
        },
    }
    for name, what in (("get_weather", "weather"), ("find_hotel", "best hotel"))
]


@dataclass(frozen=True)
class Arm:
    """A student: its family, whether input and output embedding are one, how it is quantised, and its file's type."""

    family: str
    tied: bool
    quant: str | None = None
    gguf_type: str | None = None


ARMS = (
    Arm("Llama", False, "q4_0"),
    Arm("Llama", True, "q8_0"),
    Arm("Qwen3", True, "q4_0"),
    Arm("Qwen3", False, "int8_channel"),
    Arm("Qwen2", True, None, "q8_0"),
    Arm("SmolLM3", True, None, "f16"),
    Arm("Mistral", False, None, "q4_0"),
)


def _call(name: str, city: str, days: int) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": {"city": city, "days": days}}}


def record(number: int) -> dict[str, Any]:
    """One record: a call, two calls at once, a second turn after a tool's result, or small talk."""
    draws = random.Random(number)
    city, other = draws.sample(CITIES, 2)
    days, kind = draws.randint(1, 9), number % 5
    name, what = draws.choice((("get_weather", "weather"), ("find_hotel", "hotel")))
    messages: list[dict[str, Any]] = [{"role": "user", "content": f"The {what} in {city} for {days} days?"}]
    calls = [_call(name, city, days)]
    if kind == 1:
        messages[0]["content"] = f"The {what} in {city} and in {other} for {days} days?"
        calls.append(_call(name, other, days))
    if kind == 2:
        messages += [
            {"role": "assistant", "content": None, "tool_calls": calls},
            {
                "role": "tool",
                "name": name,
                "content": json.dumps({"answer": f"fine in {city}", "days": days}),
            },
            {"role": "user", "content": f"And in {other}?"},
        ]
        calls = [_call(name, other, days)]
    if kind == 3:
        messages[0]["content"] = f"Do you like {city}?"
        answer: dict[str, Any] = {
            "role": "assistant",
            "content": f"I cannot say: {city} is not for me to judge.",
        }
    else:
        answer = {"role": "assistant", "content": None, "tool_calls": calls}
    return {"messages": messages, "tools": TOOLS, "truth_message": answer, "tool_should_be_used": kind != 3}


def write_inputs(folder: Path) -> None:
    """Records, and a tokenizer like SmolLM2's that was trained on them."""
    for name, numbers in (("train", range(1000)), ("validation", range(1000, 1060))):
        lines = [json.dumps(record(number), ensure_ascii=False) + "\n" for number in numbers]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train([str(folder / "train.jsonl")], trainer)
    (folder / "tokenizer").mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))


def start(arm: Arm, folder: Path) -> Path:
    """A random model of the arm's family, as a directory to start from."""
    rows = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json")).get_vocab_size()
    sizes = {
        "vocab_size": rows,
        "hidden_size": 128,
        "intermediate_size": 320,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": arm.tied,
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 2,
    } | ({"head_dim": 32} if arm.family == "Qwen3" else {})
    torch.manual_seed(0)
    config = getattr(transformers, f"{arm.family}Config")(**sizes)
    directory = folder / f"start-{arm.family}-{arm.tied}"
    getattr(transformers, f"{arm.family}ForCausalLM")(config).save_pretrained(directory)
    return directory


def config_of(arm: Arm, folder: Path, steps: int) -> Config:
    """The config of the arm's run."""
    quant: dict[str, Any] = {"enabled": arm.quant is not None}
    if arm.quant is not None:
        quant |= {"format": arm.quant, "start_fraction": 0.5, "learning_rate": 3e-4, "fail_on_unstable": True}
    name = "-".join(filter(None, [arm.family.lower(), "tied" if arm.tied else "untied", arm.quant]))
    return config_from_dict(
        {
            "arch": {"init": str(start(arm, folder))},
            "data": {
                "train": str(folder / "train.jsonl"),
                "validation": str(folder / "validation.jsonl"),
                "tokenizer": str(folder / "tokenizer"),
                "template": "hermes",
                "shapes": SHAPES,
                "threads": 1,
            },
            "optimizer": {"learning_rate": 3e-3, "warmup_steps": 20},
            "train": {
                "num_steps": steps,
                "micro_batch_size": 8,
                "validate_every_steps": steps // 2,
                "checkpoint_every_steps": 0,
                "device": "cpu",
                "threads": 1,
            },
            "kd": {"kl_weight": 0, "ce_teacher_weight": 0, "ce_truth_weight": 1},
            "quant": quant,
            "speed": {"every_validations": 0},
            "gates": {"enabled": []},
            "io": {"run_dir": str(folder / name)},
        }
    )


def exported(run: Path, kind: str | None, folder: Path) -> dict[str, Any]:
    """What the manifest of a run's export says."""
    out = folder / f"{run.name}-{kind or 'own'}"
    request = ExportRequest(model=run, target="gguf", out=out, gguf_type=kind, threads=2)  # type: ignore[arg-type]
    code = export(look_before_exporting(request))
    made = out if code == 0 else failed_folder(out)
    document: dict[str, Any] = json.loads((made / "manifest.json").read_bytes())
    size = sum(one["bytes"] for one in document["files"] if one["file"].endswith(".gguf"))
    return {"run": run.name, "gguf": document["gguf"], "bytes": size, "parity": document["parity"]}


COLUMNS = (
    "student",
    "file",
    "codes",
    "kB",
    "weights",
    "mean KL, nats",
    "largest KL",
    "top-1 equal",
    "prompts",
    "answers' calls",
    "right answers' calls",
    "ends",
)


def cells(row: dict[str, Any]) -> list[str]:
    """A row of the table."""
    parity = row["parity"]
    logits, prompts, calls = (parity[name]["figures"] for name in ("logits", "prompt", "calls"))
    sure = logits["top1_positions"]
    return [
        row["run"],
        row["gguf"]["type"],
        row["gguf"]["origin"],
        f"{row['bytes'] / 1e3:,.0f}",
        f"{parity['weights']['status']}, {parity['weights']['figures']['tensors']} tensors",
        f"{logits['mean_kl']:.1e}; decoded {logits['decoded_mean_kl']:.1e}",
        f"{max(logits['max_kl'], logits['decoded_max_kl']):.1e}",
        f"{logits['top1_equal']:.1%} of {sure}" if sure else "not measured",
        f"{prompts['equal']} of {prompts['compared']}",
        f"{calls['equal']} of {calls['answers'] - calls['cut']}",
        f"{calls['forced_equal']} of {calls['forced_answers']}",
        f"{calls['stopped_right']} of {calls['ended']}",
    ]


def markdown(document: dict[str, Any]) -> str:
    """The results as a page."""
    machine = document["machine"]
    lines = [
        "# Exports in llama.cpp against what was trained",
        "",
        f"`python bench/export_parity.py` trained small students, {document['steps']} steps each, and exported them.",
        "KL and top-1: torch with the weights that ship, against llama.cpp, at held-out answers and at the tokens that "
        "llama.cpp decoded itself;",
        "top-1 where torch's two likeliest tokens are more than 0.2 nats apart.",
        "",
        f"Machine: {machine['key']}; torch {machine['versions']['torch']}, xllamacpp {machine['xllamacpp']}.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
        *(f"| {' | '.join(cells(row))} |" for row in document["rows"]),
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    """Trains, exports, and writes the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--arms", type=int, default=len(ARMS), help="the first N students only")
    parser.add_argument("--also", type=Path, nargs="*", default=[], help="finished runs")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_inputs(folder)
        for arm in ARMS[: options.arms]:
            config = config_of(arm, folder, options.steps)
            if train(config).exit_code:
                raise SystemExit(f"the student could not be trained: {arm}")
            rows.append(exported(config.io.run_dir, arm.gguf_type, folder))
        for run in options.also:
            quantised = (run / "student" / "quantized.safetensors").is_file()
            rows += [
                exported(run, kind, folder) for kind in ((None,) if quantised else ("f16", "q8_0", "q4_0"))
            ]
    hardware = describe_hardware(torch.device("cpu"), torch.float32)
    document = {
        "machine": {**hardware.to_json(), "xllamacpp": version()},
        "steps": options.steps,
        "rows": rows,
    }
    write_document(options.out / "export_parity.json", document)
    write_text_whole(options.out / "export_parity.md", markdown(document))
    print((options.out / "export_parity.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
