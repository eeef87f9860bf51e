"""`kdfast preflight`: looks at everything, check by check, and keeps the result in the run folder."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from kdfast.config import Config
from kdfast.files import write_document, write_text_whole
from kdfast.recipes.preflight.check import Check
from kdfast.recipes.preflight.facts import PreflightRequest, SmallProject
from kdfast.recipes.preflight.look import look_once
from kdfast.recipes.preflight.made.makers import MAKERS
from kdfast.recipes.preflight.made.objects import Objects
from kdfast.recipes.preflight.shown.junit import junit_xml
from kdfast.recipes.preflight.shown.record import input_fingerprints, kdfast_version
from kdfast.recipes.preflight.shown.result import Result, Row
from kdfast.recipes.preflight.shown.screen import PreflightScreen
from kdfast.recipes.preflight.table import CHECKS
from kdfast.runs.folder import RunFolder

_MADE_UP = "the teacher's log-probabilities of the small run are made up; the real ones are not looked at"

_IN_FP32 = "the small run is in fp32: this CPU is slow in bf16, which train.dtype asks for"


def run(config: Config, request: PreflightRequest | None = None) -> int:
    """Looks at everything, shows it, and writes `preflight.json` into the run folder.

    Args:
        config: the config that is to be paid for.
        request: what else the user asks.

    Returns:
        The exit code: 0, or 4 when a check failed.

    Raises:
        OSError: the result cannot be written, or there is no room for scratch files.
        KeyboardInterrupt: it was stopped; nothing is left.
    """
    request = request or PreflightRequest()
    screen = PreflightScreen(config, request)
    with screen:
        result = preflight(config, request, screen)
    paths = _write(result, config, request)
    screen.end(result, paths)
    return result.exit_code


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
    with tempfile.TemporaryDirectory(prefix="kdfast-preflight-", ignore_cleanup_errors=True) as folder:
        given = {"config": config, "request": request, "work": Path(folder)}
        objects = Objects(MAKERS, given)
        rows = list(_rows(checks, objects, request, screen))
        rows += _unclaimed(objects, rows)
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
        inputs=input_fingerprints(config),
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


def _unclaimed(objects: Objects, rows: Sequence[Row]) -> list[Row]:
    """A failure to make an object that no check answered for: what was skipped must not look like a success."""
    if any(row.status == "fail" for row in rows):
        return []
    return [
        Row(
            name=f"preflight.{error.name}",
            proves="Everything that the checks need can be made.",
            status="fail",
            text=f"{error.name}: {error.cause}",
            remedy="mend this, then run the preflight again",
        )
        for error in objects.failures
    ]


def _write(result: Result, config: Config, request: PreflightRequest) -> list[Path]:
    """Writes the result to the run folder, and where the user asked for it; gives the files."""
    written = []
    paths = [RunFolder(config.io.run_dir).preflight, request.json_out]
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
