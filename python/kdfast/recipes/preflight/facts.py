"""What the makers make, and what the checks look at. No torch in here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdfast.config import Config

if TYPE_CHECKING:
    from kdfast.recipes.train.result import TrainResult

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class PreflightRequest:
    """What `kdfast preflight` is asked.

    Attributes:
        full: take the student itself for the small run, however large it is.
        probe: ask the real teacher one prompt, which may cost; the answer is kept in the journal.
        strict: a warning fails, too.
        trains_next: training on this machine is what comes next, so that what does not fit here fails.
        json_out: where the result is written as JSON; None = only in the run folder.
        junit_out: where it is written as JUnit's XML; None = nowhere.
        again: the command, for what is said at the end.
    """

    full: bool = False
    probe: bool = False
    strict: bool = False
    trains_next: bool = False
    json_out: Path | None = None
    junit_out: Path | None = None
    again: str = "kdfast preflight CONFIG"


MOST_PARAMETERS = 500_000_000
"""A larger student is not loaded for the checks of the model; a stand-in is looked at."""


def trained_elsewhere(figures: Mapping[str, int], request: PreflightRequest) -> bool:
    """Whether the student is so large that it is likely trained on another machine, and its teacher asked on this one.

    Args:
        figures: the estimate of the run.
        request: what the user asks.

    Example:
        >>> large = {"parameters": 9_000_000_000}
        >>> trained_elsewhere(large, PreflightRequest()), trained_elsewhere(large, PreflightRequest(trains_next=True))
        (True, False)
    """
    return figures["parameters"] > MOST_PARAMETERS and not (request.full or request.trains_next)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Some of the user's own records.

    Attributes:
        records: 10 to 20 records of training, parsed; fewer only if the file has fewer.
        texts: the same, as they are written.
        beside_texts: records of other files of `data.train`, if `records` are prompts.
        lines: where each is: (file, line).
        held_out: some held-out records; () = there is no held-out file.
        held_out_texts: the same, as they are written.
        of: how many rows or prompts there are to draw from.
        asked: whether `records` are prompts, which nobody has answered yet.
    """

    records: tuple[Json, ...]
    texts: tuple[str, ...] = ()
    beside_texts: tuple[str, ...] = ()
    lines: tuple[tuple[Path, int], ...]
    held_out: tuple[Json, ...]
    held_out_texts: tuple[str, ...] = ()
    of: int
    asked: bool


@dataclass(frozen=True, kw_only=True)
class SmallProject:
    """The files and the config of the small run.

    Attributes:
        folder: the scratch folder that holds them.
        config: the user's config with the sample for its data, and few steps.
        stand_in: what stands in for the student ("2 layers, 0.4 M parameters, for 134.5 M"); "" = nothing.
        teacher_is_made_up: whether the teacher's log-probabilities are made up.
        in_fp32: whether it is in fp32 though the config asks for bf16, which is slow on this CPU.
    """

    folder: Path
    config: Config
    stand_in: str
    teacher_is_made_up: bool
    in_fp32: bool = False


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One event of the small run.

    Attributes:
        kind: "step", "validation", "checkpoint" or "end".
        step: updates done.
        values: its numbers.
    """

    kind: str
    step: int
    values: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class SmallRun:
    """What the small run left.

    Attributes:
        project: its files and config.
        result: how it ended.
        seen: its events, in order.
        lines: the lines of its `metrics.jsonl`.
        output: what it printed.
        warnings: what Python, torch and other libraries warned of, each once.
        seconds: how long it took.
    """

    project: SmallProject
    result: TrainResult
    seen: Sequence[Seen]
    lines: Sequence[Json]
    output: str
    warnings: Sequence[str] = field(default=())
    seconds: float = 0.0

    def of(self, kind: str) -> list[Seen]:
        """The events of a kind."""
        return [one for one in self.seen if one.kind == kind]


@dataclass(frozen=True, kw_only=True)
class TaughtSample:
    """What the fake teacher answered to the sample, through the real client and journal.

    Attributes:
        config: the config of that job; its files are in the scratch folder.
        records: the records that were written.
        code: the job's exit code.
        output: what it printed.
        served: behaviour of the fake server -> how often it was played.
    """

    config: Config
    records: tuple[Json, ...]
    code: int
    output: str
    served: Mapping[str, int]
