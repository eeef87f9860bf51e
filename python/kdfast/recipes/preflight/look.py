"""Lets one check look at its objects. No torch in here."""

from __future__ import annotations

import re
import traceback

from kdfast.recipes.preflight.check import Check, Finding, failed, skipped
from kdfast.recipes.preflight.made.objects import EXPECTED, FOREIGN, NotMadeError, Objects

_REPORT = "look at what this check names; if all is right there, it is a fault of kdfast: please report it"
_AGAIN = "mend this, then run the preflight again"


def look_once(check: Check, objects: Objects) -> list[Finding]:
    """What a check finds: one finding, or several.

    If an object that it needs cannot be made, the check fails if it answers for that object, and is skipped otherwise.

    Args:
        check: the check.
        objects: what there is to look at.

    Example:
        >>> def seen(number): return Finding(status="pass", text=f"{number} is there")
        >>> check = Check(name="example.number", proves="There is a number.", look=seen)
        >>> [one.text for one in look_once(check, Objects({}, {"number": 3}))]
        ['3 is there']
    """
    try:
        found = objects.call(check.look)
    except NotMadeError as error:
        if error.name in check.owns:
            return failures(error.cause)
        return [_not_made(error)]
    except (*EXPECTED, *FOREIGN) as error:
        return failures(error)
    return [found] if isinstance(found, Finding) else list(found)


def _not_made(error: NotMadeError) -> Finding:
    return skipped(
        f"needs what could not be made ({error.name.replace('_', ' ')}): see the check that failed"
    )


def failures(error: Exception) -> list[Finding]:
    """An error as findings, one for each mistake that it names: what happened, and the remedy after the semicolon.

    An error that no part of kdfast raises on purpose is shown with its traceback.

    Args:
        error: the error.

    Example:
        >>> from kdfast.errors import KdfastError
        >>> found = failures(KdfastError("train.threads: there are 2; lower it, got 8"))
        >>> [(one.text, one.remedy) for one in found]
        [('train.threads: there are 2', 'lower it, got 8')]
    """
    if not isinstance(error, EXPECTED):
        said = " ".join(str(error).split("\n"))
        lines = "".join(traceback.format_exception(error)).splitlines()
        return [failed(f"{type(error).__name__}: {said}", _REPORT, *lines)]
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror[:1].lower()}{error.strerror[1:]}"
        return [_failure(text + (f": {error.filename}" if error.filename is not None else ""))]
    return [_failure(" ".join(one.split("\n"))) for one in _MISTAKE.split(str(error))]


_MISTAKE = re.compile(r"\n(?=[\w.-]+: )")
"""The end of a line whose next line begins with the name of a key."""


def _failure(text: str) -> Finding:
    """A quote of the file ("near: ...") belongs to what happened, not to the remedy."""
    whole, near, quote = text.partition("; near: ")
    said, _, remedy = whole.partition("; ")
    return failed(said + near + quote, remedy or _AGAIN)
