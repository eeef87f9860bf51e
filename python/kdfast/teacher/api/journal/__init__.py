"""The journal of an API teacher: no answer that was paid is lost or paid again.

`Journal` writes it, `backup`, `export` and `verify` read it. `docs/journal.md` describes the promise and the file.
"""

from kdfast.teacher.api.journal.copies import backup, export, exported_lines
from kdfast.teacher.api.journal.entries import (
    Answer,
    Attempt,
    AttemptRow,
    Busy,
    GivenUp,
    Money,
    Response,
    Stats,
    Verdict,
)
from kdfast.teacher.api.journal.journal import Journal
from kdfast.teacher.api.journal.owners import Leases
from kdfast.teacher.api.journal.reading import Reader
from kdfast.teacher.api.journal.request import Request, canonical_json
from kdfast.teacher.api.journal.verify import Verification, verify

__all__ = [
    "Answer",
    "Attempt",
    "AttemptRow",
    "Busy",
    "GivenUp",
    "Journal",
    "Leases",
    "Money",
    "Reader",
    "Request",
    "Response",
    "Stats",
    "Verdict",
    "Verification",
    "backup",
    "canonical_json",
    "export",
    "exported_lines",
    "verify",
]
