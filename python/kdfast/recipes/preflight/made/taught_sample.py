"""The fake teacher answers the sample: through the real recipe, client and journal, past faults, without a cent."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kdfast._rust import record_keys
from kdfast.config import Config, DataConfig, PriceConfig
from kdfast.errors import TeacherError
from kdfast.exit_codes import INTERRUPTED, TEACHER_UNAVAILABLE
from kdfast.recipes.preflight.facts import Sample, TaughtSample
from kdfast.recipes.requests import TeachRequest
from kdfast.recipes.teach.dataset import OWN_KEY
from kdfast.recipes.teach.run import run
from kdfast.teacher.api.body import CHAT
from kdfast.teacher.api.fake_replies import FakeRequest
from kdfast.teacher.api.fake_server import FakeServer, by_seed
from kdfast.teacher.prompts import read_prompts

FAULTS = (
    "rate_limit_seconds",
    "rate_limit_ms",
    "error_500",
    "error_503",
    "reset",
    "truncated_body",
    "cut_chunks",
)
"""After these the same request succeeds. Those that end a request for good would cost a record of the small sample;
`fault_trials` plays every fault."""

_FAULT_RATIO = 0.4
_WAIT_S = 0.05
_TIMEOUT_S = 30.0
_AT_ONCE = 16

_PROMPT_KEYS = frozenset({"prompt", "messages", "tools", "functions"})
_TRUTH_KEYS = frozenset({"truth_text", "truth_message", "tool_should_be_used"})


def teach_sample(config: Config, sample: Sample, work: Path) -> TaughtSample:
    """Runs `kdfast teach` on the sample's records, with the fake server on this machine as its teacher.

    What the user set about data and requests stays. Who answers, files, price, budget and limits of speed are the
    job's own; each prompt is asked once. Many requests meet a fault at first. What the user's settings
    leave out is missing in `records`, and `output` says why.

    A record that is a teacher's answer already is sent without it; its truth stays beside the prompt. Where the truth
    is no call, the server is told to make none: by itself it calls a tool whenever there is one.

    To `completions` the fake server can only repeat the rendered prompt, whose tools read like broken calls. If nothing
    can be learned of that, the sample is asked as `chat/completions`.

    Args:
        config: the user's config, of any kind of teacher.
        sample: the records.
        work: a scratch folder; the job's files are in its folder `taught`, which is made anew.

    Raises:
        ConfigError, DataError: the recipe refuses the config or a record.
        OSError: a file cannot be written.
        KeyboardInterrupt: it was stopped.
    """
    folder = work / "taught"
    shutil.rmtree(folder, ignore_errors=True)
    taught = _teach(config, sample, folder)
    if taught.records or config.api.endpoint == CHAT:
        return taught
    return _teach(
        replace(config, api=replace(config.api, endpoint="chat/completions")), sample, folder / "chat"
    )


def teach_quietly(config: Config, request: TeachRequest) -> tuple[int, str, TeacherError | None]:
    """Runs `kdfast teach`, and keeps what it prints.

    Returns:
        the exit code, what was printed, and the error with which the job ended, if it ended with one.

    Raises:
        ConfigError, DataError, OSError: as the recipe raises them.
        KeyboardInterrupt: it was stopped.
    """
    printed, error = io.StringIO(), None
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            code = run(config, request)
        except TeacherError as caught:
            code, error = TEACHER_UNAVAILABLE, caught
            printed.write(f"{caught}\n")
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    return code, printed.getvalue(), error


def _teach(config: Config, sample: Sample, folder: Path) -> TaughtSample:
    """One job, in a folder of its own."""
    folder.mkdir(parents=True)
    data = _data(config.data, asked=sample.asked)
    prompts = folder / "prompts.jsonl"
    records = [as_prompt(record, asked=sample.asked) for record in sample.records]
    _write(prompts, records)
    for prompt in read_prompts(prompts, data, {}):
        if prompt.should_call is False and prompt.tools and prompt.tool_choice is None:
            records[prompt.line - 1]["tool_choice"] = "none"
    _write(prompts, records)
    with FakeServer(_faulty_at_first(config.train.seed), wait_s=_WAIT_S) as server:
        small = _config(config, data, folder, server.url)
        code, output, _ = teach_quietly(small, TeachRequest())
        served = dict(server.behaviours)
    out = folder / "answers.jsonl"
    lines = out.read_text(encoding="utf-8").split("\n") if out.exists() else []
    return TaughtSample(
        config=small,
        records=tuple(json.loads(line) for line in lines if line),
        code=code,
        output=output,
        served=served,
    )


def _faulty_at_first(seed: int) -> Any:
    """A fault at most once a request: waits are a second and double with each further fault."""
    draw = by_seed(seed, _FAULT_RATIO, FAULTS)

    def choose(request: FakeRequest) -> str:
        return "ok" if request.times_seen else draw(request)

    return choose


def _data(data: DataConfig, *, asked: bool) -> DataConfig:
    """How the prompts are read. Records that nobody meant to ask may be no prompts: they are left out."""
    if asked and data.on_error == "raise":
        return data
    return replace(data, on_error="quarantine", max_rejected_fraction=1.0)


def _config(config: Config, data: DataConfig, folder: Path, url: str) -> Config:
    """The user's config with the fake server as the teacher, and files of its own."""
    teacher = replace(
        config.teacher,
        kind="api",
        prompts=folder / "prompts.jsonl",
        out=folder / "answers.jsonl",
        journal=folder / "journal.db",
        answers_per_prompt=1,
        budget=None,
        max_retries=max(2, config.teacher.max_retries),
        max_unknown_retries=max(2, config.teacher.max_unknown_retries),
        ask_refused_again=False,
    )
    api = replace(
        config.api,
        base_url=url,
        model=config.api.model or "fake",
        key_from_env=None,  # no key goes to a server that is none
        headers_from_env=None,
        concurrency=_AT_ONCE,
        requests_per_minute=None,
        tokens_per_minute=None,
        timeout_seconds=_TIMEOUT_S,
    )
    return replace(
        config,
        data=replace(data, train=folder / "answers.jsonl"),
        teacher=teacher,
        api=api,
        price=PriceConfig(free=True),
        io=replace(config.io, run_dir=folder / "run"),
    )


def as_prompt(record: Any, *, asked: bool) -> Any:
    """A record without a teacher's answer, and without the note of who gave it.

    What the reader of prompts refuses stays as it is: the reader says what is wrong with it.

    Args:
        record: any JSON value.
        asked: whether it is a prompt already.

    Example:
        >>> as_prompt({"prompt": "Is it raining?", "teacher_text": "Yes."}, asked=False)
        {'prompt': 'Is it raining?'}
    """
    if not isinstance(record, Mapping):
        return record
    answers = {*record_keys(), OWN_KEY} - _PROMPT_KEYS - _TRUTH_KEYS - {"metadata"}
    if not asked and not (record.get("tools") or record.get("functions")):
        # Its tools may stand in a system message: a prompt whose truth calls must name them.
        answers |= _TRUTH_KEYS
    kept = {key: value for key, value in record.items() if key not in answers}
    messages = kept.get("messages")
    if answers >= _TRUTH_KEYS and isinstance(messages, list) and len(messages) > 1:
        last = messages[-1]
        is_answer = isinstance(last, Mapping) and last.get("role") == "assistant"
        kept["messages"] = messages[:-1] if is_answer else messages
    metadata = kept.get("metadata")
    if isinstance(metadata, str):  # table exports write objects as texts
        with contextlib.suppress(ValueError, RecursionError):
            metadata = json.loads(metadata)
    if isinstance(metadata, Mapping):
        kept["metadata"] = {key: value for key, value in metadata.items() if key != OWN_KEY}
    return kept


def _write(path: Path, records: list[Any]) -> None:
    lines = (json.dumps(record) + "\n" for record in records)
    path.write_text("".join(lines), encoding="utf-8", newline="\n")
