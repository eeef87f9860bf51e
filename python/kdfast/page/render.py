"""Makes one HTML document from the files of a run."""

from __future__ import annotations

from datetime import UTC, datetime

from kdfast.page.categories import COLUMNS
from kdfast.page.checks import Shown, checks, verdict
from kdfast.page.environment import environment
from kdfast.page.evaluation import evaluation_section
from kdfast.page.exports import export_check, export_section
from kdfast.page.gates import gate_section
from kdfast.page.history import History, read_history
from kdfast.page.losses import loss_section
from kdfast.page.preflight import preflight_check, preflight_section
from kdfast.page.quantization import quantization_check, quantization_section
from kdfast.page.settings import settings_section
from kdfast.page.shapes import shape_section
from kdfast.page.shares import estimates
from kdfast.page.speed import speed_section
from kdfast.page.tiles import tiles
from kdfast.runs.reading import Missing, RunFiles, there


def render_page(files: RunFiles) -> tuple[str, str]:
    """Makes the page of a run.

    The document needs no network, no script and no other file, and its security policy forbids all three. So text
    that a model wrote can do nothing in a reader's browser, even if escaping should fail.

    Args:
        files: the run's files.

    Returns:
        The HTML document, and its verdict in one line.

    Raises:
        DataError: a file is not as `kdfast train` writes it; the message names file, line and key.
    """
    lines = files.metrics
    history = (
        History(train=[], validation=[], speed=[]) if isinstance(lines, Missing) else read_history(lines)
    )
    speed, gates, calls = speed_section(files, history), gate_section(files), evaluation_section(files)
    shown = Shown(
        config=files.config,
        history=history,
        before=estimates(there(files.before)),
        after=estimates(there(files.after)),
        after_missing=files.after.short if isinstance(files.after, Missing) else "",
        speed=speed,
        gates=gates,
        cut_silent=calls.cut_silent,
        student_step=files.student_step,
    )
    quantization = quantization_section(files)
    exports = export_section(files)
    preflight = preflight_section(files)
    further = quantization_check(quantization), export_check(exports, files), preflight_check(preflight)
    made = [*checks(shown), *(one for one in further if one is not None)]
    answer, word, told = verdict(made)
    template = environment().get_template("page.html.jinja")
    document = template.render(
        name=files.name,
        written=datetime.fromtimestamp(files.written_at, tz=UTC).strftime("%Y-%m-%d %H:%M UTC"),
        answer=answer,
        word=word,
        told=told,
        checks=made,
        tiles=tiles(shown),
        metrics_missing=lines.reason if isinstance(lines, Missing) else "",
        torn=files.torn,
        losses=loss_section(history, files.config),
        calls=calls,
        columns=list(COLUMNS.values()),
        speed=speed,
        gates=gates,
        quantization=quantization,
        exports=exports,
        shapes=shape_section(history, files.config),
        settings=settings_section(files),
        preflight=preflight,
    )
    return document, f"{word}: {told}"
