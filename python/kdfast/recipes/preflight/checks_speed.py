"""Speed and gates: what will be measured can be measured, and the limits can be met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kdfast.config import Config
from kdfast.errors import DataError
from kdfast.recipes.preflight.check import Check, Finding, failed, passed, skipped, warned
from kdfast.recipes.preflight.facts import SmallRun
from kdfast.runs.folder import RunFolder

if TYPE_CHECKING:
    from kdfast.data import KDDataset

_NEEDED = ("ttft_ms", "tps")
_MOST_PROMPTS = 200
_MOST_COMPARED = 2_000
_TIMES = ("ttft_p50", "ttft_p95", "tps_p50", "tps_p95")
_BLESS = "`kdfast bless RUN` a student that is good enough, and set gates.baseline to its file"


def metrics_are_measured(run: SmallRun) -> Finding:
    """The speed report of the small run has its times."""
    from kdfast.speed import read_speed_report

    config = run.project.config
    if config.data.validation is None:
        return skipped("data.validation is not set: there are no prompts to measure on")
    if not config.speed.every_validations:
        return skipped("speed.every_validations is 0")
    report = read_speed_report(RunFolder(config.io.run_dir).speed)
    metrics: dict[str, Any] = report["metrics"]
    lacking = [name for name in _NEEDED if name not in metrics]
    if lacking:
        why = report["absent"].get(lacking[0], "the report does not say why")
        remedy = "raise speed.prompts or speed.max_new_tokens, or look at the prompts of data.validation"
        return failed(f"{' and '.join(lacking)} could not be measured: {why}", remedy)
    said = ", ".join(f"{name} p50 {metrics[name]['p50']:.4g}" for name in _NEEDED)
    calls = metrics.get("ttfa_tokens", {"count": 0, "infinite": 0})
    first = f"{calls['count'] - calls['infinite']} answers had a call, more is for the real run to learn"
    return passed(f"{len(report.get('prompts', ()))} prompts: {said}; {first}")


def first_call_can_be_in_time(
    config: Config, held_out_rows: KDDataset | None, sample_rows: KDDataset
) -> Finding:
    """The shortest right calls against the limit of the first one."""
    gates = config.gates
    if "ttfa_p95" not in gates.enabled:
        return skipped("the gate ttfa_p95 is not enabled")
    if gates.ttfa_metric == "ttfa_overhead_tokens":
        return skipped("gates.ttfa_metric counts tokens beyond the shortest right call")
    from kdfast.speed import Metric, speed_prompts

    rows = sample_rows if held_out_rows is None else held_out_rows
    prompts = speed_prompts(rows, _MOST_PROMPTS, formats=rows.formats)
    calls = [float(one.shortest_call_tokens) for one in prompts if one.shortest_call_tokens is not None]
    if not calls:
        return skipped(f"none of {len(prompts)} prompts has a call that is known to be right")
    where = "sampled" if held_out_rows is None else "held-out"
    needed = Metric("tokens", calls).percentile(95)
    text = f"the shortest right calls to {len(calls)} {where} prompts need p95 = {needed:g} tokens"
    return _judge_first_call(config, text, needed)


def _judge_first_call(config: Config, text: str, needed: float) -> Finding:
    """The limit against what the shortest right calls need."""
    limit = config.gates.ttfa_p95_tokens
    if needed <= limit:
        return passed(f"{text}, the limit is {limit:g}")
    if config.gates.ttfa_metric == "ttfa_name_tokens":
        return skipped(f"{text}, but only their names must come within {limit:g}")
    remedy = (
        f"raise gates.ttfa_p95_tokens to {needed:g} or more, or set gates.ttfa_metric=ttfa_overhead_tokens"
    )
    beyond = f"{text}, more than the limit {limit:g}: no student can pass"
    if _is_asked_for(config):
        return failed(beyond, remedy)
    return warned(f"{beyond}, and the gate will be skipped", remedy)


def gates_can_be_judged(config: Config, held_out_rows: KDDataset | None) -> Finding:
    """The baseline can be read and compares with what this machine will measure."""
    gates = config.gates
    if not gates.enabled:
        return skipped("gates.enabled is []")
    if held_out_rows is None:
        return warned(
            "gates are enabled, and there are no held-out prompts", "set data.validation, or gates.enabled=[]"
        )
    from kdfast.recipes.train.gates import blessed_reports, gates_without_prompts

    if gates.baseline is None:
        without = gates_without_prompts(config)
        also = f"; {without}" if without else ""
        return warned(f"there is no baseline: gates that need one will be skipped{also}", _BLESS)
    try:
        reports = blessed_reports(config)
    except (DataError, OSError):
        return skipped("the file gates.baseline cannot be read, see config.files_are_there")
    return _judge_baseline(config, reports, held_out_rows)


def _judge_baseline(config: Config, reports: Sequence[Any], held_out_rows: KDDataset) -> Finding:
    """A blessed model's machine and prompts against this run's."""
    times = [name for name in config.gates.enabled if name in _TIMES]
    here, there = _hardware_key(config), sorted({_key(report) for report in reports})
    if times and there != [here]:
        text = (
            f"the baseline is of {' and '.join(there)}, this is {here}: {' and '.join(times)} will be skipped"
        )
        return warned(text, "bless a run on this machine (`kdfast bless RUN`)")
    asked = [prompt.get("fingerprint") for prompt in reports[0].get("prompts") or ()]
    text = f"{len(reports)} blessed report(s) of this machine"
    if len(held_out_rows) > _MOST_COMPARED:
        return passed(f"{text}; its {len(asked)} prompts were not looked for among {len(held_out_rows)} rows")
    from kdfast.speed import prompts_fingerprint, speed_prompts

    known = {prompts_fingerprint([prompt]) for prompt in speed_prompts(held_out_rows)}
    lacking = sum(one not in known for one in asked)
    if lacking or not asked:
        text = f"{lacking} of the baseline's {len(asked)} prompts are not in data.validation, word for word"
        return warned(f"{text}: gates with a baseline will be skipped", "bless a run on these prompts")
    return passed(f"{text} on {len(asked)} prompts of data.validation")


def _is_asked_for(config: Config) -> bool:
    """Whether the user wrote of this gate; else its limit is kdfast's own guess."""
    keys = ("gates.enabled", "gates.ttfa_p95_tokens", "gates.ttfa_metric")
    return config.train.fail_on_gate or any(config.origins.get(key, "default") != "default" for key in keys)


def _key(report: Any) -> str:
    return str((report.get("hardware") or {}).get("key", "unknown hardware"))


def _hardware_key(config: Config) -> str:
    """The key of the times that a run will measure here."""
    import torch

    from kdfast.pretrained import resolve_device
    from kdfast.speed import describe_hardware

    found = describe_hardware(resolve_device(config.train.device, key="train.device"), torch.float32)
    return replace(found, torch_threads=config.train.threads or found.torch_threads).key


CHECKS = (
    Check(
        name="speed.metrics_are_measured",
        proves="Times to the first token and per token can be measured on the held-out prompts.",
        look=metrics_are_measured,
        slow=True,
    ),
    Check(
        name="speed.first_call_can_be_in_time",
        proves="The limit of the first valid call leaves room for the calls of these tools.",
        look=first_call_can_be_in_time,
    ),
    Check(
        name="speed.gates_can_be_judged",
        proves="The gates have a baseline that compares with what will be measured.",
        look=gates_can_be_judged,
    ),
)
