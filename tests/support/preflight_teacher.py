"""A server of one's own, or a hosted one, for the teacher of the preflight's clean project."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import tiny_run
from preflight_objects import clean, folder

from kdfast.config import ApiConfig, Config, PriceConfig
from kdfast.recipes.preflight.made.objects import Objects

KEY = "kd-secret-0123456789"
HOSTED = "https://example.com/v1"
PRICE = PriceConfig(input=1.0, output=4.0)
CHEAP = (
    "reader", "machine", "written_rows", "held_out_rows", "sample", "figures", "small", "sample_rows", "train_rows",
    "sampled", "batches", "student", "student_note", "learner", "live_teacher", "objective",
)  # fmt: skip


@functools.cache
def prompts() -> Path:
    """Prompts with tools, in the folder of this process."""
    path = folder() / "prompts.jsonl"
    lines = []
    for number in range(8):
        record = tiny_run.record(number)
        record.pop("teacher_text", None)
        lines.append(json.dumps(record) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


def config(
    work: Path,
    *,
    api: dict[str, Any] | None = None,
    price: PriceConfig = PRICE,
    lines: Path | None = None,
    **teacher: Any,
) -> Config:
    """The clean project, with a server of its own for its teacher."""
    made: Config = clean().get("config")
    section = replace(
        made.teacher,
        prompts=lines or prompts(),
        out=work / "answers.jsonl",
        journal=work / "journal.db",
        **{"kind": "api", "budget": 1.0, "max_new_tokens": 64, **teacher},
    )
    server = {"base_url": "http://127.0.0.1:9/v1", "model": "fake", "key_from_env": "TEACHER_KEY"}
    return replace(made, teacher=section, api=ApiConfig(**(server | (api or {}))), price=price)


def objects(made: Config, **more: Any) -> Objects:
    """The clean project's objects with another config, and the plan that is made of it."""
    kept = {name: clean().get(name) for name in CHEAP}
    return clean().replaced(**{**kept, "config": made, **more})


def hosted(work: Path, **changes: Any) -> Config:
    """A hosted server, as it should be."""
    api = {"base_url": HOSTED, **changes.pop("api", {})}
    return config(work, api=api, **{"terms": "acknowledged", **changes})
