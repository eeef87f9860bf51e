"""Jobs of a tiny teacher on this machine: its files, requests, a reader of answers, and what a journal holds."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from tiny_run import CITIES, write_config

from kdfast._rust import Tokenizer
from kdfast.config import Config, load_config
from kdfast.display import Display
from kdfast.recipes.teach.local import answer
from kdfast.runs.student import weights_fingerprint
from kdfast.stop import StopRequest
from kdfast.teacher.api.job_report import JobResult
from kdfast.teacher.api.journal import Answer, Journal, Verdict, exported_lines
from kdfast.teacher.api.usage import Usage
from kdfast.teacher.asked import Asked
from kdfast.teacher.local.requests import LocalSettings, local_request
from kdfast.teacher.prompts import Prompt
from kdfast.teacher.reading import Reading

END_IDS = tuple(range(0, 512, 7))
"""So many that answers of a random model end at different times."""


def write_job(folder: Path, **teacher: Any) -> Config:
    """Writes a tiny teacher; gives the config of a job, whose section `teacher` gets these keys."""
    changes = {"max_new_tokens": 12, **teacher}
    return load_config(write_config(folder, **{f"teacher__{key}": value for key, value in changes.items()}))


def settings_of(config: Config, **changes: Any) -> LocalSettings:
    """The settings of a config, with many ids that end an answer."""
    assert config.teacher.model is not None
    settings = LocalSettings(
        model=weights_fingerprint(config.teacher.model),
        dtype=config.teacher.dtype,
        tokenizer="t",
        end_ids=END_IDS,
        max_tokens=config.teacher.max_new_tokens,
        temperature=config.teacher.temperature,
        seed=config.teacher.seed,
        answers_per_prompt=config.teacher.answers_per_prompt,
    )
    return replace(settings, **changes)


def requests_of(config: Config, numbers: Sequence[int], **changes: Any) -> list[Asked]:
    """The requests for the prompts with these numbers."""
    settings, tokenizer = settings_of(config, **changes), Tokenizer.from_file(config.data.tokenizer)
    asked = []
    for number in numbers:
        text = (
            f"What is the weather in {CITIES[number % 6]}?" + " Tell me, please." * (number % 5) + str(number)
        )
        ids = tokenizer.encode(text)
        prompt = Prompt(source=Path("prompts.jsonl"), line=number + 1, index=number, prompt=text)
        asked += [
            Asked(prompt=prompt, request=local_request(prompt, sample, ids, settings), input_tokens=len(ids))
            for sample in range(config.teacher.answers_per_prompt)
        ]
    return asked


def read(asked: Asked, answer: Answer) -> Reading:
    """An answer is filtered if it was cut."""
    document = json.loads(answer.body)
    choice, usage = document["choices"][0], document["usage"]
    cut = choice["finish_reason"] == "length"
    return Reading(
        verdict=Verdict("filtered", "cut") if cut else Verdict("accepted"),
        answer={} if cut else {"teacher_text": choice["text"]},
        usage=Usage(input_tokens=usage["prompt_tokens"], output_tokens=usage["completion_tokens"]),
    )


def quiet() -> Display:
    """A display that nobody sees."""
    return Display(Console(file=io.StringIO()))


def run_job(
    asked: Sequence[Asked], config: Config, path: Path, display: Display | None = None, **options: Any
) -> JobResult:
    """Answers requests through the journal at `path`."""
    options = {"read": read, "stop": StopRequest()} | options
    with Journal(path) as journal:
        return answer(asked, config, journal, display=display or quiet(), **options)


def exported(path: Path) -> list[dict[str, Any]]:
    """What the journal holds; without the one thing that differs from run to run."""
    with Journal(path) as journal:
        return [json.loads(line) | {"latency_ms": 0} for line in exported_lines(journal)]


def attempts(path: Path, asked: Sequence[Asked]) -> list[list[str]]:
    """For each request the states of its attempts."""
    with Journal(path) as journal:
        return [[one.state for one in journal.attempts(each.request.hash)] for each in asked]
