"""kdfast: distil a tool-calling language model into a small student that is fast on the device by construction.

Names are imported when they are first used, so that `import kdfast` loads neither torch nor the Rust core.

Examples:
    >>> import kdfast
    >>> [call.name for call in kdfast.find_tool_calls('<tool_call>{"name": "f", "arguments": {}}</tool_call>')]
    ['f']
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdfast._rust import (
        ToolCall,
        ToolCallStream,
        ToolSchema,
        find_attempted_calls,
        find_tool_calls,
        is_valid_tool_json,
        is_valid_tool_json_each,
        looks_like_tool_json,
    )
    from kdfast.config import Config, load_config
    from kdfast.data import KDDataset, collate_kd_batch
    from kdfast.gates import evaluate_speed_gates, load_baseline_speed_metrics
    from kdfast.losses import combined_kd_loss, early_tool_call_loss, length_aware_kd_loss
    from kdfast.recipes.train.events import TrainEvent
    from kdfast.recipes.train.objective import Objective
    from kdfast.recipes.train.result import TrainResult
    from kdfast.recipes.train.run import train
    from kdfast.recipes.train.update import train_step
    from kdfast.scoring import compute_required_fields_present
    from kdfast.shapes import sample_enumerated_shape, truncate_batch_to_shape
    from kdfast.speed import aggregate_speed_metrics, measure_proxy

_HOMES = {
    "Config": "kdfast.config",
    "KDDataset": "kdfast.data",
    "Objective": "kdfast.recipes.train.objective",
    "ToolCall": "kdfast._rust",
    "ToolCallStream": "kdfast._rust",
    "ToolSchema": "kdfast._rust",
    "TrainEvent": "kdfast.recipes.train.events",
    "TrainResult": "kdfast.recipes.train.result",
    "aggregate_speed_metrics": "kdfast.speed",
    "collate_kd_batch": "kdfast.data",
    "combined_kd_loss": "kdfast.losses",
    "compute_required_fields_present": "kdfast.scoring",
    "early_tool_call_loss": "kdfast.losses",
    "evaluate_speed_gates": "kdfast.gates",
    "find_attempted_calls": "kdfast._rust",
    "find_tool_calls": "kdfast._rust",
    "is_valid_tool_json": "kdfast._rust",
    "is_valid_tool_json_each": "kdfast._rust",
    "length_aware_kd_loss": "kdfast.losses",
    "load_baseline_speed_metrics": "kdfast.gates",
    "load_config": "kdfast.config",
    "looks_like_tool_json": "kdfast._rust",
    "measure_proxy": "kdfast.speed",
    "sample_enumerated_shape": "kdfast.shapes",
    "train": "kdfast.recipes.train.run",
    "train_step": "kdfast.recipes.train.update",
    "truncate_batch_to_shape": "kdfast.shapes",
}

__all__ = [
    "Config",
    "KDDataset",
    "Objective",
    "ToolCall",
    "ToolCallStream",
    "ToolSchema",
    "TrainEvent",
    "TrainResult",
    "aggregate_speed_metrics",
    "collate_kd_batch",
    "combined_kd_loss",
    "compute_required_fields_present",
    "early_tool_call_loss",
    "evaluate_speed_gates",
    "find_attempted_calls",
    "find_tool_calls",
    "is_valid_tool_json",
    "is_valid_tool_json_each",
    "length_aware_kd_loss",
    "load_baseline_speed_metrics",
    "load_config",
    "looks_like_tool_json",
    "measure_proxy",
    "sample_enumerated_shape",
    "train",
    "train_step",
    "truncate_batch_to_shape",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kdfast' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
