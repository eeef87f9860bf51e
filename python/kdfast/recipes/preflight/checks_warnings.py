"""What Python, torch and other libraries warned of in the small run, each once."""

from __future__ import annotations

from collections.abc import Sequence

from kdfast.recipes.preflight.check import Check, Finding, passed, warned
from kdfast.recipes.preflight.facts import SmallRun

_MOST_CHARACTERS = 300


def nothing_warns(run: SmallRun) -> Finding | Sequence[Finding]:
    """One finding a warning."""
    texts = dict.fromkeys(" ".join(text.split()) for text in run.warnings)
    found = [text for text in texts if text]
    if not found:
        return passed(f"no library warned in {run.result.step} steps")
    return [_finding(text) for text in found]


def _finding(text: str) -> Finding:
    short = text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}..."
    remedy = "the real run will warn of it, too: mend what it names, or see that it does no harm"
    return warned(short, remedy)


CHECKS = (
    Check(
        name="warnings.nothing_warns",
        proves="No library saw anything odd in the small run.",
        look=nothing_warns,
        slow=True,
    ),
)
