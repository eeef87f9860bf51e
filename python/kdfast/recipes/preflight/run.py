"""`kdfast preflight`: looks at everything, check by check, and keeps the result in the run folder."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from kdfast.config import Config
from kdfast.errors import ConfigError
from kdfast.files import write_document, write_text_whole
from kdfast.recipes.first_look.files import check_named
from kdfast.recipes.preflight.check import Check, passed
from kdfast.recipes.preflight.facts import PreflightRequest, SmallProject
from kdfast.recipes.preflight.look import failures, look_once
from kdfast.recipes.preflight.made.makers import MAKERS
from kdfast.recipes.preflight.made.objects import Objects
from kdfast.recipes.preflight.shown.junit import junit_xml
from kdfast.recipes.preflight.shown.record import input_fingerprints, kdfast_version
from kdfast.recipes.preflight.shown.result import Result, Row
from kdfast.recipes.preflight.shown.screen import PreflightScreen
from kdfast.recipes.preflight.table import CHECKS
from kdfast.runs.claim import check_not_running
from kdfast.runs.folder import RunFolder

_MADE_UP = "the teacher's log-probabilities of the small run are made up; a store that is there is opened and counted"

_IN_FP32 = "the small run is in fp32: this CPU is slow in bf16, which train.dtype asks for"


def run(config: Config, request: PreflightRequest | None = None, checks: Sequence[Check] = CHECKS) -> int:
    """Looks at everything, shows it, and writes `preflight.json` into the run folder.

    Args:
        config: the config that is to be paid for.
        request: what else the user asks.
        checks: what to look at.

    Returns:
        The exit code: 0, or 4 when a check failed.

    Raises:
        ConfigError: `--json` or `--junit` name a place where no file can be.
        OSError: the result cannot be written, or there is no room for scratch files.
        KeyboardInterrupt: it was stopped; nothing is left.
    """
    request = request or PreflightRequest()
    check_named([(f"--{kind}", _unwritable(path)) for kind, path in _outputs(request)])
    screen = PreflightScreen(config, request)
    with screen:
        result = preflight(config, request, screen, checks)
    paths = _write(result, config, request)
    screen.end(result, paths)
    return result.exit_code


def _outputs(request: PreflightRequest) -> list[tuple[str, Path]]:
    """The files that the user asked for, each with its option."""
    named = [("json", request.json_out), ("junit", request.junit_out)]
    return [(kind, path) for kind, path in named if path is not None]


def _unwritable(path: Path) -> str | None:
    """What is wrong with a file that is to be written; None = nothing. Said before the minute, not after it."""
    if path.is_dir():
        return f"is a directory (name a file instead): {path}"
    folder = next((one for one in path.resolve().parents if one.exists()), path)
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return f"nothing may be written there; choose another folder: {folder}"
    return None


def preflight(
    config: Config,
    request: PreflightRequest,
    screen: PreflightScreen | None = None,
    checks: Sequence[Check] = CHECKS,
) -> Result:
    """Looks at everything in a scratch folder, which is removed.

    Args:
        config: the config.
        request: what the user asks.
        screen: shows what is being looked at; None = nothing is shown.
        checks: what to look at.
    """
    started_at, started = time.time(), time.perf_counter()
    inputs = input_fingerprints(
        config, trains_next=request.trains_next
    )  # of before: files may change meanwhile
    with tempfile.TemporaryDirectory(prefix="kdfast-preflight-", ignore_cleanup_errors=True) as folder:
        given = {"config": config, "request": request, "work": Path(folder)}
        objects = Objects(MAKERS, given)
        rows = list(_rows(checks, objects, request, screen))
        rows += _unclaimed(objects, checks)
        small = objects.made("small")
        notes = [] if small is None else _notes(small)
        stand_in = "" if small is None else small.stand_in
    return Result(
        rows=tuple(rows),
        seconds=time.perf_counter() - started,
        config_fingerprint=config.fingerprint(),
        started_at=started_at,
        kdfast_version=kdfast_version(),
        stand_in=stand_in,
        notes=tuple(notes),
        inputs=inputs,
        full=request.full,
        probe=request.probe,
        strict=request.strict,
    )


def _notes(small: SmallProject) -> list[str]:
    """What a reader must know of the small run."""
    said = {_MADE_UP: small.teacher_is_made_up, _IN_FP32: small.in_fp32}
    return [note for note, holds in said.items() if holds]


def _rows(
    checks: Sequence[Check], objects: Objects, request: PreflightRequest, screen: PreflightScreen | None
) -> Iterator[Row]:
    group = ""
    for check in checks:
        if screen is not None:
            if check.group != group:
                screen.begin(check.group)
            screen.looking(check)
        group = check.group
        started = time.perf_counter()
        findings = look_once(check, objects)
        seconds = (time.perf_counter() - started) / max(len(findings), 1)
        for finding in findings:
            row = Row.of(check, finding, seconds, strict=request.strict)
            if screen is not None:
                screen.found(row)
            yield row


def _unclaimed(objects: Objects, checks: Sequence[Check]) -> list[Row]:
    """What could not be made and no check answers for: what was skipped must not look like a success."""
    owned = {name for check in checks for name in check.owns}
    return [
        Row.of(_MADE, found, seconds=0.0)
        for error in objects.failures
        if error.name not in owned
        for found in failures(error.cause)
    ]


_MADE = Check(
    name="preflight.everything_is_made",
    proves="Everything that the checks look at can be made.",
    look=lambda: passed("all is made"),
)


def _write(result: Result, config: Config, request: PreflightRequest) -> list[Path]:
    """Writes the result to the run folder, and where the user asked for it; gives the files."""
    written = []
    folder = RunFolder(config.io.run_dir)
    try:
        check_not_running(folder)
        paths = [folder.preflight, request.json_out]
    except ConfigError:
        paths = [request.json_out]  # a run is going on there: its own preflight stays
    for path in paths:
        if path is None:
            continue
        try:
            write_document(path, result.to_json())
        except OSError:
            if path == request.json_out or not result.failed:
                raise
            continue  # the folder that cannot be written is among the failures
        written.append(path)
    if request.junit_out is not None:
        write_text_whole(request.junit_out, junit_xml(result))
        written.append(request.junit_out)
    return written
