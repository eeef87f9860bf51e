"""What one parity check found: the exported file against what was trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["passed", "failed", "waived", "not_measured"]


@dataclass(frozen=True, kw_only=True)
class ParityCheck:
    """One check.

    Attributes:
        name: `weights`, `logits`, `prompt` or `calls`.
        status: `waived` = it differs, and the user accepted every difference by name.
        figures: what was measured; JSON values. A figure that could not be measured is absent.
        problems: what is wrong, one sentence each, that names tensor, record or token.
        reason: why it, or a part of it, was not measured; "" = all of it was.

    Example:
        >>> ParityCheck(name="weights", status="passed", figures={"tensors": 12}).failed
        False
    """

    name: str
    status: Status
    figures: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    reason: str = ""

    @property
    def failed(self) -> bool:
        """Whether the export must not ship."""
        return self.status == "failed"

    def to_json(self) -> dict[str, Any]:
        """The check's entry in a manifest."""
        return {
            "status": self.status,
            **({"reason": self.reason} if self.reason else {}),
            "figures": dict(self.figures),
            "problems": list(self.problems),
        }
