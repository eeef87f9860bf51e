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


def quantization(*, failed: bool = False) -> dict[str, Any]:
    """A comparison of quantised students: the float one, one quantised after training, and QAT unless it failed."""

    def share(count: int, total: int) -> dict[str, Any]:
        fraction = count / total
        ends = {"low": max(0.0, fraction - 0.2), "high": min(1.0, fraction + 0.2)}
        return {"count": count, "total": total, "fraction": fraction, **ends}

    def arm(name: str, title: str, size: int, right: int, **more: Any) -> dict[str, Any]:
        calls = {
            "schema_valid": share(right + 2, 20),
            "exact_match": share(right, 20),
            "false_calls": share(1, 8),
        }
        counts = {"records": 40, "positions": 372, "names": 30, "args": 120}
        return {"name": name, "title": title, "bytes": size, "calls": calls, **counts, **more}

    def compared(kl: float, same: int, cosines: list[float]) -> dict[str, Any]:
        top1 = {"count": same, "total": 372, "fraction": same / 372}
        return {"kl": kl, "top1": top1, "cosines": cosines}

    arms = [
        arm("float", "float, at the start", 4 << 20, 17, loss=0.2113, nll_names=0.021, nll_args=0.113),
        arm(
            "start, post-training",
            "step 6, quantised after training",
            700_000,
            14,
            loss=0.2342,
            nll_names=0.031,
            nll_args=0.151,
            **compared(0.0517, 356, [0.9999, 0.9934, 0.9871, 0.9802]),
        ),
        arm(
            "qat",
            "trained under quantisation",
            700_000,
            16,
            loss=0.2155,
            nll_names=0.022,
            nll_args=0.1181,
            **compared(0.0312, 364, [0.9999, 0.9951, 0.9912, 0.9876]),
        ),
    ]
    better = {"value": -0.0205, "low": -0.027, "high": -0.0141, "records": 40, "says": "lower"}
    alike = {"value": -0.009, "low": -0.021, "high": 0.004, "records": 30, "says": "not_shown"}
    told = [
        "KL to the float student: QAT 0.0312 against 0.0517 (step 6, quantised after training), -0.02 "
        "[-0.027, -0.014]: QAT is closer to it",
        "NLL of tool names: QAT 0.022 against 0.031 (step 6, quantised after training), -0.009 [-0.021, +0.004]: "
        "no difference that these 30 records can show",
    ]
    lost = ["QAT FAILED and was given up: step 8: layer 3: mean cosine 0.91 is below quant.min_cosine (0.95)"]
    return {
        "schema_version": "1.0",
        "kind": "kdfast.quantization",
        "step": 8,
        "format": "q4_0",
        "embeddings": "q8_0",
        "status": "failed" if failed else "kept",
        "reasons": ["step 8: layer 3: mean cosine 0.91 is below quant.min_cosine (0.95)"] if failed else [],
        "arms": arms[:2] if failed else arms,
        "differences": []
        if failed
        else [{"against": "start, post-training", "kl": better, "nll_names": alike}],
        "judgement": lost if failed else told,
    }


def qat_line(step: int, event: str, **values: Any) -> dict[str, Any]:
    """A line of a phase under quantisation."""
    return {"step": step, "kind": "qat", "export": False, "event": event, **values}


def qat_lines() -> list[dict[str, Any]]:
    """A phase under quantisation that went back once."""
    return [
        qat_line(4, "start", cosine=0.9802, kl=0.0517, top1_fraction=0.957),
        qat_line(
            5,
            "check",
            passed=True,
            cosine=0.9811,
            kl=0.0468,
            top1_fraction=0.965,
            changed_fraction=0.004,
            sign_changes=0.0,
            flips=120.0,
            returns=9.0,
        ),
        qat_line(
            5,
            "rolled_back",
            rate_factor=0.5,
            reason="diverging: loss above 2.0 times its mean of the first tenth",
        ),
        qat_line(7, "frozen"),
        qat_line(
            8,
            "check",
            passed=True,
            cosine=0.9876,
            kl=0.0312,
            top1_fraction=0.978,
            changed_fraction=0.0135,
            sign_changes=3.0,
            flips=410.0,
            returns=55.0,
        ),
    ]


def write_run(folder: Path, **files: Any) -> Path:
    """Writes a run folder. A file that is None is left out; one that is text is written unchanged.

    Args:
        folder: the folder; created if missing.
        files: the content of `config`, `metrics`, `evaluation_before`, `evaluation_after`, `speed`, `gates` or
            `quantization`; a file that is not named here gets valid content, but there is no `quantization.json`.
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
