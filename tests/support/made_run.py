"""A run folder made by hand: every file that `kdfast report` reads, without a model or training."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import yaml

LEVELS = (5, 10, 25, 50, 75, 90, 95)
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
EVIL = (
    "</pre></script><script>alert('owned')</script><img src=x onerror=alert(1)> {{ 7 * 7 }} &amp; \"quoted\""
)


def config(**changes: Any) -> dict[str, dict[str, Any]]:
    """The smallest valid config; `changes` are `section__key=value`."""
    made: dict[str, dict[str, Any]] = {
        "arch": {"init": "models/small"},
        "data": {
            "train": "t.jsonl",
            "validation": "v.jsonl",
            "tokenizer": "models/small",
            "shapes": [128, 256, 512],
        },
        "train": {"num_steps": 8, "micro_batch_size": 4, "gradient_accumulation_steps": 2, "eval_prompts": 6},
        "optimizer": {"warmup_steps": 2},
        "io": {"run_dir": "runs/made"},
    }
    for name, value in changes.items():
        section, key = name.split("__")
        made.setdefault(section, {})[key] = value
    return made


def train_line(step: int, loss: float, **values: float) -> dict[str, Any]:
    shape = 256 if step % 4 else 512
    return {
        "step": step,
        "kind": "train",
        "loss": loss,
        "kl": loss * 0.8,
        "ce_truth": loss * 1.4,
        "tokens": 8.0 * shape * 0.75,
        "learning_rate": 1e-4,
        "grad_norm": 1.5,
        "shape": float(shape),
        "seconds": 2.0,
        "tokens_per_second": 4.0 * shape * 0.75,
        **values,
    }


def validation_line(step: int, loss: float, **values: float) -> dict[str, Any]:
    rates = {"token_accuracy": 1 - loss / 2, "token_agreement": 1 - loss / 3}
    return {
        "step": step,
        "kind": "validation",
        "loss": loss,
        "kl": loss * 0.8,
        "ce_truth": loss,
        **rates,
        **values,
    }


def speed_line(step: int, never: int, count: int = 4) -> dict[str, Any]:
    numbers = {"ttft_ms.p50": 40.0, "ttft_ms.p95": 55.0, "tps.p50": 20.0, "tps.p5": 15.0}
    counts = {"ttfa_tokens.infinite": float(never), "ttfa_tokens.count": float(count)}
    return {"step": step, "kind": "speed", "export": False, "absent": {}, **numbers, **counts}


def metrics(steps: int = 8) -> list[dict[str, Any]]:
    """The lines of a run whose loss falls."""
    rng = random.Random(steps)
    lines = [validation_line(0, 1.0), speed_line(0, 4)]
    for step in range(1, steps + 1):
        level = 0.2 + 0.8 * math.exp(-3 * step / steps)
        lines.append(train_line(step, level * rng.uniform(0.8, 1.25)))
        if step % max(1, steps // 4) == 0:
            lines += [validation_line(step, level), speed_line(step, round(4 * (1 - step / steps)))]
    return lines


def answer(text: str, **score: bool) -> dict[str, Any]:
    """An answer of an evaluation; each mark that `score` does not set is true if `text` is a call."""
    called = "<tool_call>" in text
    marks = dict.fromkeys(("parsed", "right_function", "schema_valid", "exact_match"), called) | score
    due = score.get("should_call", True)
    wrong = due and not marks["exact_match"]
    return {
        "text": text,
        "tokens": len(text) // 4,
        "cut": False,
        "reference_text": CALL if due else "I cannot do that.",
        "score": {
            "should_call": due,
            **marks,
            "mismatch": {"reason": "value", "detail": "city: 'Rome' is none of ['Paris']"} if wrong else None,
        },
    }


def evaluation(step: int, answers: list[dict[str, Any]], *, intervals: bool = False) -> dict[str, Any]:
    """An evaluation file of these answers."""
    due = [one["score"] for one in answers if one["score"]["should_call"]]
    others = [one["score"] for one in answers if not one["score"]["should_call"]]
    counts = {
        name: (sum(score[name] for score in due), len(due))
        for name in ("parsed", "right_function", "schema_valid", "exact_match")
    } | {"false_calls": (sum(score["parsed"] for score in others), len(others))}
    table = {
        name: {"count": count, "total": total, "fraction": count / total if total else None}
        for name, (count, total) in counts.items()
    }
    made: dict[str, Any] = {"step": step, "table": table, "generation_s": 1.5, "answers": answers}
    if intervals:
        for share in table.values():
            if share["total"]:
                share |= {
                    "low": max(0.0, share["fraction"] - 0.2),
                    "high": min(1.0, share["fraction"] + 0.15),
                }
        made["quality"] = {
            "f1": {"value": 0.625, "low": 0.5, "high": 0.75},
            "absent": {"precision": "none made"},
        }
    return made


BEFORE = [answer("It is sunny."), answer("Sorry."), answer("Hello", should_call=False)]
AFTER = [answer(CALL), answer(CALL, exact_match=False), answer("Fine.", should_call=False)]


def metric(unit: str, samples: list[float], **more: Any) -> dict[str, Any]:
    """A metric object of a speed report; inf becomes null."""
    ordered = sorted(samples)

    def level(percent: int) -> float | None:
        value = ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]
        return None if math.isinf(value) else value

    return {
        "unit": unit,
        **{f"p{percent}": level(percent) for percent in LEVELS},
        "count": len(samples),
        "infinite": sum(map(math.isinf, samples)),
        **more,
        "samples": [None if math.isinf(value) else value for value in samples],
    }


def speed(prompts: int = 24, never: int = 2, cut: int = 0) -> dict[str, Any]:
    """A speed report: `never` prompts got no call, and the answers to `cut` more were cut before one."""
    rng = random.Random(prompts)
    first = [rng.lognormvariate(6, 0.25) for _ in range(prompts)]
    acted = prompts - never - cut
    action = [math.inf] * (never + cut) + [float(rng.randint(26, 55)) for _ in range(acted)]
    metrics = {
        "ttft_ms": metric("ms", first),
        "ttft_prefill_ms": metric("ms", [value * 0.9 for value in first]),
        "tps": metric("tokens/s", [rng.uniform(18, 26) for _ in range(prompts)]),
        "ttfa_tokens": metric("tokens", action, cut=cut),
        "ttfa_ms": metric("ms", [value * 45 for value in action], cut=cut),
    }
    return {
        "schema_version": "1.0",
        "kind": "kdfast.speed_report",
        "export": False,
        "step": 8,
        "hardware": {
            "key": "Some CPU / AVX512 / 2 cores / 1 threads / cpu / fp32",
            "load_average": [0.2, 0.3, 0.2],
        },
        "decoding": {
            "mode": "free",
            "sampling": "greedy",
            "batch_size": 1,
            "max_new_tokens": 64,
            "warmup": 1,
        },
        "metrics": metrics,
        "absent": {"ttfa_overhead_tokens": "no prompt that needs a call has a ground truth"},
        "shapes": {"256": {"metrics": {"ttft_ms": metric("ms", first[:5])}}, "512": {"metrics": {}}},
        "fingerprints": {"prompts": "ab" * 32, "tokenizer": "cd" * 32},
        "shortest_call_tokens": metric("tokens", [27.0, 31.0, 44.0]),
    }


def gate(name: str, status: str, reason: str, **numbers: Any) -> dict[str, Any]:
    """One result of a gate report."""
    made = {"value": None, "limit": None, "baseline": None, "unit": "", "infinite": [], **numbers}
    return {"name": name, "status": status, "reason": reason, **made}


def gates() -> dict[str, Any]:
    """A gate report with one gate of each status."""
    results = [
        gate(
            "ttft_p50",
            "passed",
            "paired: 1.01 times as slow",
            value=1.01,
            limit=1.05,
            baseline=1.0,
            unit="x slower",
        ),
        gate(
            "ttft_p95",
            "report_only",
            "too uncertain to judge",
            value=1.1,
            limit=1.05,
            baseline=1.0,
            unit="x slower",
        ),
        gate("tps_p50", "inconclusive", "the runs differ too much to judge: run more"),
        gate(
            "ttfa_p95", "failed", "2 prompts got no valid call", limit=25.0, unit="tokens", infinite=["value"]
        ),
        gate("f1", "skipped", "no_baseline", value=0.625),
    ]
    return {
        "kind": "kdfast.gate_report",
        "passed": False,
        "exit_code": 3,
        "strict": False,
        "results": results,
    }


def write_run(folder: Path, **files: Any) -> Path:
    """Writes a run folder. A file that is None is left out; one that is text is written unchanged.

    Args:
        folder: the folder; created if missing.
        files: the content of `config`, `metrics`, `evaluation_before`, `evaluation_after`, `speed` or `gates`; a file
            that is not named here gets valid content.
    """
    whole = {
        "config": config(),
        "metrics": metrics(),
        "evaluation_before": evaluation(0, BEFORE),
        "evaluation_after": evaluation(8, AFTER),
        "speed": speed(),
        "gates": gates(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (whole | files).items():
        ending = {"config": "yaml", "metrics": "jsonl"}.get(name, "json")
        if content is not None:
            (folder / f"{name}.{ending}").write_text(_text(ending, content), encoding="utf-8")
    return folder


def _text(ending: str, content: Any) -> str:
    if isinstance(content, str):
        return content
    if ending == "yaml":
        return yaml.safe_dump(content)
    if ending == "jsonl":
        return "".join(json.dumps(line) + "\n" for line in content)
    return json.dumps(content)
