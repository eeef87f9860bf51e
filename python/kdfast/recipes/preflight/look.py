"""Lets one check look at its objects. No torch in here."""

from __future__ import annotations

from kdfast.errors import KdfastError
from kdfast.recipes.preflight.check import Check, Finding, failed, skipped
from kdfast.recipes.preflight.made.objects import NotMadeError, Objects

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
        return [_not_made(check, error)]
    except (KdfastError, OSError) as error:
        return [failure(error)]
    return [found] if isinstance(found, Finding) else list(found)


def _not_made(check: Check, error: NotMadeError) -> Finding:
    if error.name in check.owns:
        return failure(error.cause)
    return skipped(
        f"needs what could not be made ({error.name.replace('_', ' ')}): see the check that failed"
    )


def failure(error: KdfastError | OSError) -> Finding:
    """An error as a finding: what happened, and after the first semicolon of its message the remedy.

    Args:
        error: the error.

    Example:
        >>> found = failure(KdfastError("train.threads: there are 2; lower it, got 8"))
        >>> found.text, found.remedy
        ('train.threads: there are 2', 'lower it, got 8')
    """
    text = " ".join(str(error).split("\n"))
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror[:1].lower()}{error.strerror[1:]}"
        text += f": {error.filename}" if error.filename is not None else ""
    said, _, remedy = text.partition("; ")
    return failed(said, remedy or _AGAIN)
