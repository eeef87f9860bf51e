"""Measures how fast a model answers, and how many tokens it writes until it acts.

`measure_proxy` generates with a KV cache, one prompt at a time, and keeps every raw sample. `aggregate_speed_metrics`
computes statistics, in which a first action that never came counts as infinite. `speed_report` makes the JSON report.

Examples:
    >>> from kdfast.speed import aggregate_speed_metrics
    >>> aggregate_speed_metrics([{"tps": 20.0}, {"tps": 25.0}])["tps"].to_json()["p5"]
    20.0
"""

from kdfast.speed.aggregate import METRICS, SpeedMetrics, aggregate_speed_metrics, by_shape
from kdfast.speed.engine import Engine, TransformersEngine
from kdfast.speed.hardware import Hardware, describe_hardware, describe_llama_cpp
from kdfast.speed.metric import Metric
from kdfast.speed.prompts import speed_prompts
from kdfast.speed.proxy import (
    SpeedOptions,
    evaluating,
    measure_prompt,
    measure_proxy,
    model_eos_ids,
    warm_up,
)
from kdfast.speed.report import Provenance, read_speed_report, speed_report, write_speed_report
from kdfast.speed.sample import SpeedPrompt, SpeedSample, prompts_fingerprint, truth_fingerprint
from kdfast.speed.shortest import shortest_call_tokens
from kdfast.speed.table import absences, headline, speed_table

__all__ = [
    "METRICS",
    "Engine",
    "Hardware",
    "Metric",
    "Provenance",
    "SpeedMetrics",
    "SpeedOptions",
    "SpeedPrompt",
    "SpeedSample",
    "TransformersEngine",
    "absences",
    "aggregate_speed_metrics",
    "by_shape",
    "describe_hardware",
    "describe_llama_cpp",
    "evaluating",
    "headline",
    "measure_prompt",
    "measure_proxy",
    "model_eos_ids",
    "prompts_fingerprint",
    "read_speed_report",
    "shortest_call_tokens",
    "speed_prompts",
    "speed_report",
    "speed_table",
    "truth_fingerprint",
    "warm_up",
    "write_speed_report",
]
