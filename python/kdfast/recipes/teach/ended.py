"""Whether a job is done; if not, the error that says why, and how to go on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from kdfast.config import Config
from kdfast.errors import BudgetReached, TeacherError
from kdfast.recipes.requests import TeachRequest
from kdfast.recipes.teach.asking import Asking
from kdfast.recipes.teach.dataset import Written
from kdfast.teacher.api.journal import Journal
from kdfast.teacher.asked import Asked


def check_ended(
    done: Asking, asked: Sequence[Asked], journal: Journal, config: Config, request: TeachRequest
) -> None:
    """Checks that every request of a job was answered.

    Args:
        done: how the asking ended.
        asked: the requests.
        journal: has the answers.
        config: the config.
        request: knows the command that goes on.

    Raises:
        TeacherError: the job ended early, or requests have no answer; a job that was stopped raises nothing.
    """
    if done.error is not None:
        if isinstance(done.error, BudgetReached):
            more = request.again(without="teacher.budget")
            done.error.add_note(f"raise teacher.budget, then go on with: {more}")
        else:
            done.error.add_note(f"go on with: {request.again()}")
        raise done.error
    if done.ended == "stopped":
        return
    missing = [one for one in asked if journal.answered(one.request.hash) is None]
    if not missing:
        return
    if config.teacher.kind == "replay":
        both = config.api.base_url is not None and config.teacher.model is not None
        other = "; if teacher.model answered, set api.base_url to null" if both else ""
        raise TeacherError(
            f"{len(missing)} requests have no answer in the journal; ask for them with teacher.kind 'api' or 'local'"
            f"{other}",
            retryable=True,
        )
    most = config.teacher.max_unknown_retries
    lost = sum(journal.unknown_outcomes(one.request.hash) > most for one in missing)
    words = f"{len(missing)} requests have no answer{_why(missing, journal)}"
    if lost:
        words += f"; {lost} were lost too often: raise teacher.max_unknown_retries, each may be charged"
    again = f"{len(missing) - lost} of them are asked again by: {request.again()}"
    raise TeacherError(f"{words}; {again}", retryable=True)


def _why(missing: Sequence[Asked], journal: Journal) -> str:
    """What most of them ended with."""
    reasons: Counter[str] = Counter()
    for one in missing:
        tries = journal.attempts(one.request.hash)
        if tries:
            last = tries[-1]
            reasons[f"HTTP status {last.status}" if last.status is not None else last.reason] += 1
    return f" ({reasons.most_common(1)[0][0]} from {missing[0].request.endpoint})" if reasons else ""


def check_written(written: Written) -> None:
    """Checks that there is something to learn.

    Raises:
        TeacherError: there is no record.
    """
    if written.records:
        return
    older = f"; the file that is there is of another run: {written.path}" if written.path.exists() else ""
    reasons = ", ".join(f"{verdict.reason} {count}" for verdict, count in written.left_out.most_common(3))
    raise TeacherError(
        f"no answer can be learned ({reasons or 'there is none'}), so nothing was written{older}"
    )
