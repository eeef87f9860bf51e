"""Every error class that kdfast raises on purpose.

Messages are lower case, name what is wrong, give the remedy where there is one, and end with the value.
All of these errors can be pickled, so that they reach the user unchanged from a DataLoader worker.
"""

from __future__ import annotations

from typing import Any


class KdfastError(Exception):
    """Base of all errors of kdfast."""


class DataError(KdfastError, ValueError):
    """Bad input data: a record, a store, a tokenizer file.

    Attributes:
        source: the file (or another name of the input), if known.
        line: 1-based line in it, if known.
        column: 1-based column in bytes, if known.
    """

    def __init__(
        self, message: str, source: str | None = None, line: int | None = None, column: int | None = None
    ) -> None:
        super().__init__(message, source, line, column)
        self.message = message
        self.source = source
        self.line = line
        self.column = column

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.source, self.line, self.column) if part is not None)
        return f"{place}: {self.message}" if place else self.message


class SchemaError(KdfastError, ValueError):
    """A tool definition whose parameters are no valid JSON Schema."""


class ToolCallError(KdfastError, ValueError):
    """A tool call that breaks its schema.

    Attributes:
        issues: one dict per defect, with `instance_path`, `schema_path` (JSON pointers) and `message`.
    """

    def __init__(self, message: str, issues: list[dict[str, Any]] | None = None) -> None:
        super().__init__(message, issues)
        self.message = message
        self.issues = issues or []

    def __str__(self) -> str:
        return self.message


class ConfigError(KdfastError, ValueError):
    """A config key that is unknown, of the wrong type or out of range; the message starts with its dotted path."""


class TeacherError(KdfastError, RuntimeError):
    """The teacher could not be loaded or did not answer.

    Attributes:
        status: HTTP status, for a teacher behind an API.
        retryable: whether the same request may succeed later.
    """

    def __init__(self, message: str, status: int | None = None, retryable: bool = False) -> None:
        super().__init__(message, status, retryable)
        self.message = message
        self.status = status
        self.retryable = retryable

    def __str__(self) -> str:
        return self.message


class BudgetReached(TeacherError):  # noqa: N818 - a limit that the user set, no fault
    """The next request might cost more than what is left of the budget; it was not sent.

    All amounts are in millionths of the currency.

    Attributes:
        spent_micro: what ended requests cost; one whose cost is not known counts with its worst case.
        in_flight_micro: the worst case of the requests in flight.
        next_micro: the worst case of the refused request.
        budget_micro: the budget.
    """

    def __init__(self, spent_micro: int, in_flight_micro: int, next_micro: int, budget_micro: int) -> None:
        super().__init__("")
        self.args = (spent_micro, in_flight_micro, next_micro, budget_micro)
        self.spent_micro = spent_micro
        self.in_flight_micro = in_flight_micro
        self.next_micro = next_micro
        self.budget_micro = budget_micro
        self.message = (
            f"the budget is reached: {_amount(spent_micro)} spent, {_amount(in_flight_micro)} in flight, "
            f"up to {_amount(next_micro)} for the next request; the budget is {_amount(budget_micro)}"
        )


class QATError(KdfastError, RuntimeError):
    """A model cannot be quantised as asked, or what was quantised is not what was trained."""


class DivergedError(KdfastError):
    """A loss or a gradient is not finite; no weight was changed. Every rank of a run raises it at the same step."""


class CheckpointError(KdfastError, RuntimeError):
    """A checkpoint that is missing, damaged or of another run."""


def _amount(micro: int) -> str:
    """An amount of millionths, written with 6 decimals."""
    return f"{micro // 1_000_000}.{micro % 1_000_000:06d}"
