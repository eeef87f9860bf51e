"""Logits: the runtime's distributions on held-out records, against torch with the same quantised table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kdfast.export.parity.records import ParityRecord
from kdfast.export.parity.result import ParityCheck

if TYPE_CHECKING:
    from kdfast.llama_cpp.model import LlamaCppModel

MAX_MEAN_KL = 0.005
"""Largest mean KL, in nats. llama.cpp rounds activations to 8 bits: a right export of a 135M student has about 0.001.
The raw cosine is a bad judge: with one tensor's scale off by 5 % it can still be 0.9999."""

MIN_TOP1 = 0.99
"""Smallest share of positions with the same likeliest token, of those where torch is sure."""

MARGIN = 0.2
"""Torch is sure where its two likeliest tokens are at least this far apart, in nats. Below, rounding decides."""

POSITIONS = 64
"""Answer positions that are looked for: records are added, one of each shape in turn, until there are so many."""

RECORD_POSITIONS = 64
"""Answer positions of one record at most: [64,V] logits are 40 MB at a vocabulary of 150,000."""

RECORDS = 8
"""Records at most: torch reads each whole prompt."""

OnRecord = Callable[[int, int], None]
ShowToken = Callable[[int], str]


@dataclass(frozen=True)
class _Position:
    """One compared distribution.

    Attributes:
        line: the record's line.
        at: the position in the row whose next token is predicted.
        decoded: the tokens before it are the runtime's own, not the record's.
        kl: KL(torch || runtime), nats.
        margin: how far apart torch's two likeliest tokens are, nats.
        tokens: the likeliest token of torch and of the runtime.
        cosine: of the two rows of logits, each minus its mean.
    """

    line: int
    at: int
    decoded: bool
    kl: float
    margin: float
    tokens: tuple[int, int]
    cosine: float

    @property
    def equal(self) -> bool:
        return self.tokens[0] == self.tokens[1]


@dataclass
class _Found:
    positions: list[_Position] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def check_logits(
    model: nn.Module,
    runtime: LlamaCppModel,
    records: Sequence[ParityRecord],
    *,
    decoded_steps: int = 32,
    show_token: ShowToken = str,
    on_progress: OnRecord | None = None,
) -> ParityCheck:
    """Compares whole distributions: at the answers' tokens, and at tokens that the runtime decodes greedily.

    Args:
        model: the student with the shipped values in its parameters (`Shipped.put_into`), so that only the runtime's
            arithmetic differs.
        runtime: the exported file.
        records: held-out records; some of them are used, of every shape in turn.
        decoded_steps: tokens that the runtime decodes after each prompt, fewer where it stops.
        show_token: shows a token id in messages, such as its text in quotation marks.
        on_progress: called after every record with (records done, records in all).

    Returns:
        The check `logits`. Not measured without a record that fits the runtime's context.
    """
    chosen = choose(records, runtime.context - decoded_steps)
    if not chosen:
        return ParityCheck(
            name="logits",
            status="not_measured",
            reason=f"no held-out record fits the runtime's context: {runtime.context} tokens",
        )
    found = _Found()
    was_training = model.training
    model.eval()
    try:
        for done, record in enumerate(chosen, 1):
            _compare_record(model, runtime, record, decoded_steps, found)
            if on_progress is not None:
                on_progress(done, len(chosen))
    finally:
        model.train(was_training)
        runtime.clear()
    return _judge(found, len(chosen), show_token)


def choose(records: Sequence[ParityRecord], longest: int) -> list[ParityRecord]:
    """The first record of each shape, then the second of each, until there are enough answer positions.

    Args:
        records: in the order of the file.
        longest: the most tokens of a record.
    """
    shapes: dict[int, list[ParityRecord]] = {}
    for record in records:
        if len(record.ids) <= min(longest, record.shape) and record.start > 1:
            shapes.setdefault(record.shape, []).append(record)
    chosen: list[ParityRecord] = []
    positions = turn = 0
    while turn < max(map(len, shapes.values()), default=0):
        for shape in sorted(shapes):
            if len(chosen) == RECORDS or (turn and positions >= POSITIONS):
                return chosen
            if turn < len(shapes[shape]):
                chosen.append(shapes[shape][turn])
                positions += min(len(chosen[-1].ids) - chosen[-1].start, RECORD_POSITIONS)
        turn += 1
    return chosen


def _compare_record(
    model: nn.Module, runtime: LlamaCppModel, record: ParityRecord, steps: int, found: _Found
) -> None:
    """The record's own answer, then the runtime's."""
    first = record.start - 1  # its logits predict the answer's first token
    last = min(len(record.ids) - 1, first + RECORD_POSITIONS)
    ids = list(record.ids[:last])
    runtime.clear()
    runtime.decode(ids[:first])
    theirs = runtime.decode(ids[first:], every=True)
    _compare(_torch_rows(model, ids, first), iter(theirs), record, decoded=False, found=found)
    decoded, rows = _decode(runtime, record.prompt_ids, steps)
    _compare(
        _torch_rows(model, record.prompt_ids + decoded, first), iter(rows), record, decoded=True, found=found
    )


def _decode(
    runtime: LlamaCppModel, prompt: list[int], steps: int
) -> tuple[list[int], list[NDArray[np.float32]]]:
    """The runtime's greedy tokens, and the logits [V] that chose each and the one after the last.

    The logits of the position after the last token are left out: their number equals that of the tokens plus one only
    where all steps were taken.
    """
    runtime.clear()
    rows = [runtime.decode(prompt)[0]]
    tokens: list[int] = []
    while len(rows) < steps and np.isfinite(rows[-1]).all():
        token = int(rows[-1].argmax())
        if token in runtime.end_ids:
            break
        tokens.append(token)
        rows.append(runtime.decode([token])[0])
    return tokens, rows


@torch.inference_mode()
def _torch_rows(model: nn.Module, ids: Sequence[int], first: int) -> Iterator[NDArray[np.float64]]:
    """Torch's logits [V] at every position from `first` on, one after the other."""
    device = next(model.parameters()).device
    options: dict[str, Any] = {}
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        options["logits_to_keep"] = len(ids) - first
    logits = model(input_ids=torch.tensor([ids], device=device), use_cache=False, **options).logits[0]
    for row in logits[-(len(ids) - first) :]:  # [V]
        yield row.double().cpu().numpy()


def _compare(
    ours: Iterator[NDArray[np.float64]],
    theirs: Iterator[NDArray[np.float32]],
    record: ParityRecord,
    *,
    decoded: bool,
    found: _Found,
) -> None:
    for offset, (torch_row, runtime_row) in enumerate(zip(ours, theirs, strict=True)):
        at = record.start - 1 + offset
        place = f"line {record.line}, position {at}"
        if torch_row.shape != runtime_row.shape:
            found.problems.append(
                f"the runtime has another vocabulary: torch has {len(torch_row)} logits, it has {len(runtime_row)}"
            )
            return
        bad = [name for name, row in (("torch", torch_row), ("the runtime", runtime_row)) if not _finite(row)]
        if bad:
            found.problems.append(f"{' and '.join(bad)} gives NaN or infinite logits: {place}")
            return
        found.positions.append(
            _position(torch_row, runtime_row.astype(np.float64), record.line, at, decoded=decoded)
        )


def _finite(row: NDArray[Any]) -> bool:
    return bool(np.isfinite(row).all())


def _position(
    ours: NDArray[np.float64], theirs: NDArray[np.float64], line: int, at: int, *, decoded: bool
) -> _Position:
    p, q = _log_softmax(ours), _log_softmax(theirs)
    second, first = np.partition(p, -2)[-2:] if len(p) > 1 else (-np.inf, p[0])
    a, b = ours - ours.mean(), theirs - theirs.mean()
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return _Position(
        line=line,
        at=at,
        decoded=decoded,
        kl=float(np.exp(p) @ (p - q)),
        margin=float(first - second),
        tokens=(int(p.argmax()), int(q.argmax())),
        cosine=float(a @ b) / size if size else 1.0,
    )


def _log_softmax(row: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = row - row.max()
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return result


def _judge(found: _Found, records: int, show_token: ShowToken) -> ParityCheck:
    positions, problems = found.positions, list(found.problems)
    forced = [position for position in positions if not position.decoded]
    decoded = [position for position in positions if position.decoded]
    sure = [position for position in positions if position.margin > MARGIN]
    figures: dict[str, Any] = {
        "records": records,
        "positions": len(forced),
        "decoded_positions": len(decoded),
    }
    for name, group in (("", forced), ("decoded_", decoded)):
        if not group:
            continue
        mean = sum(position.kl for position in group) / len(group)
        worst = max(group, key=lambda position: position.kl)
        figures |= {f"{name}mean_kl": mean, f"{name}max_kl": worst.kl}
        if mean > MAX_MEAN_KL:
            what = "decoded tokens" if name else "answers"
            problems.append(
                f"mean KL of the {what} is {mean:.4f} nats, above {MAX_MEAN_KL}; the worst is {worst.kl:.4f} at "
                f"{_place(worst, show_token)}"
            )
    figures["top1_positions"] = len(sure)
    reason = ""
    if sure:
        figures["top1_equal"] = share = sum(position.equal for position in sure) / len(sure)
        if share < MIN_TOP1:
            worst = max((one for one in sure if not one.equal), key=lambda one: one.margin)
            problems.append(
                f"the likeliest token is equal at {share:.1%} of {len(sure)} positions, below {MIN_TOP1:.0%}; the "
                f"surest difference ({worst.margin:.2f} nats) is at {_place(worst, show_token)}"
            )
    else:
        reason = (
            f"top-1 is not measured: torch's two likeliest tokens are nowhere more than {MARGIN} nats apart; train the "
            "student longer"
        )
    if positions:
        cosines = [position.cosine for position in positions]
        figures |= {
            "top1_equal_all": sum(position.equal for position in positions) / len(positions),
            "centred_cosine_mean": sum(cosines) / len(cosines),
            "centred_cosine_min": min(cosines),
        }
    return ParityCheck(
        name="logits",
        status="failed" if problems else ("passed" if sure else "not_measured"),
        figures=figures,
        problems=tuple(problems),
        reason=reason,
    )


def _place(position: _Position, show_token: ShowToken) -> str:
    ours, theirs = map(show_token, position.tokens)
    return f"line {position.line}, position {position.at}: torch expects {ours}, the runtime {theirs}"
