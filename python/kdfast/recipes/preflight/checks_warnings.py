"""What Python, torch, converters and other libraries warned of in the small runs and the exports, each once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kdfast.recipes.preflight.check import Check, Finding, passed, warned
from kdfast.recipes.preflight.facts import SmallRun

if TYPE_CHECKING:
    from kdfast.recipes.preflight.made.small_run import Exported

_MOST_CHARACTERS = 300


def nothing_warns(run: SmallRun, resumed: SmallRun, exports: Exported) -> Finding | Sequence[Finding]:
    """One finding a warning, of the run, of the resume and of the exports."""
    warned_of = (*run.warnings, *resumed.warnings, *exports.warnings)
    texts = dict.fromkeys(" ".join(text.split()) for text in warned_of)
    found = [text for text in texts if text]
    if not found:
        made = f"{len(exports.folders)} exports" if exports.folders else "no export was made"
        return passed(
            f"no library warned in {run.result.step} steps, as many with a stop and a resume; {made}"
        )
    return [_finding(text) for text in found]


def _finding(text: str) -> Finding:
    short = text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}..."
    remedy = "the real run will warn of it, too: mend what it names, or see that it does no harm"
    return warned(short, remedy)


CHECKS = (
    Check(
        name="warnings.nothing_warns",
        proves="No library saw anything odd in the small run, its resume and the exports.",
        look=nothing_warns,
        slow=True,
    ),
)
