"""Turns a teacher's logits into what the teacher store keeps of each token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdfast.teacher.local.samples import draw_samples

CHUNK_ROWS = 256
"""Tokens whose logits [rows,V] are in memory at once."""


@dataclass(frozen=True)
class Scores:
    """The teacher's distribution at the n response tokens of one row; k+1 masses add up to 1.

    Attributes:
        topk_ids: [n,k] int32, likeliest first. The token itself and `Wanted.always_ids` are always among them.
        topk_logp: [n,k] float32; unused entries have id 0 and -inf here.
        tail_logp: [n] float32, log of the mass of all other ids; -inf if there are none.
        call_opening_logp: [n] float32, log of the mass of the ids that can open a tool call.
        sample_ids: [n,S] int32, the distinct ids drawn from the whole distribution, then 0; None without samples.
        sample_counts: [n,S] int32, how often each was drawn, then 0; they add up to S at every token.
    """

    topk_ids: NDArray[np.int32]
    topk_logp: NDArray[np.float32]
    tail_logp: NDArray[np.float32]
    call_opening_logp: NDArray[np.float32]
    sample_ids: NDArray[np.int32] | None = None
    sample_counts: NDArray[np.int32] | None = None


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to keep of each distribution.

    Attributes:
        k: how many ids to keep.
        usable: only ids below this number count (rows of the model beyond the tokenizer are padding).
        always_ids: ids to keep whatever their probability; they replace the least likely.
        call_opening_ids: ids whose summed mass is kept.
        samples: ids to draw from the whole distribution at every token; 0 = none.
    """

    k: int
    usable: int
    always_ids: tuple[int, ...] = ()
    call_opening_ids: tuple[int, ...] = ()
    samples: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError for a k or ids out of range."""
        if self.k < 1 + len(set(self.always_ids)):
            raise ValueError(
                f"k must hold the answer's token and {len(set(self.always_ids))} ids to keep always: {self.k}"
            )
        bad = [i for i in (*self.always_ids, *self.call_opening_ids) if not 0 <= i < self.usable]
        if bad:
            raise ValueError(f"always_ids and call_opening_ids must be in 0..{self.usable - 1}: {bad[:8]}")


def score_logits(
    logits: Tensor, targets: Tensor, wanted: Wanted, uniforms: Tensor | None = None
) -> tuple[Tensor, ...]:
    """The k ids, their log-probabilities, the tail and the call-opening mass of each row, in fp32, and its draws.

    The tail is a logsumexp over all other ids: `1 - sum(exp(logp))` would be rounding noise where the sum is near 1.

    Args:
        logits: [N,V], V >= wanted.usable.
        targets: [N] int64, below wanted.usable.
        wanted: what to keep.
        uniforms: [N,S] float64 in [0, 1), one for each id to draw; needed if `wanted` has samples.

    Returns:
        ids [N,k] int32, log-probabilities [N,k], tails [N], call-opening [N]; with `uniforms` also the drawn ids and
        their counts, [N,S] int32 (see `draw_samples`).

    Example:
        >>> logits = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
        >>> ids, logp, tail, _ = score_logits(logits, torch.tensor([3]), Wanted(k=2, usable=4))
        >>> ids.tolist(), logp.exp().tolist(), tail.exp().tolist()
        ([[0, 3]], [[0.5, 0.125]], [0.375])
    """
    logp = torch.log_softmax(logits[:, : wanted.usable].float(), 1)  # [N,V] -> [N,usable]
    always = torch.tensor(wanted.always_ids, dtype=torch.int64, device=logits.device).expand(len(logp), -1)
    k = min(wanted.k, wanted.usable)
    # ids that must be kept rank first
    ranked = logp.scatter(1, torch.cat([targets[:, None], always], 1), math.inf)
    ids = ranked.topk(k, dim=1).indices  # [N,k]
    kept, order = logp.gather(1, ids).sort(dim=1, descending=True, stable=True)
    ids = ids.gather(1, order)
    tail = logp.scatter(1, ids, -math.inf).logsumexp(1)
    opening = logp[:, list(wanted.call_opening_ids)].logsumexp(1)
    fill = wanted.k - k
    return (
        torch.nn.functional.pad(ids, (0, fill)).int(),
        torch.nn.functional.pad(kept, (0, fill), value=-math.inf),
        tail,
        opening,
        *(draw_samples(logp, uniforms) if uniforms is not None else ()),
    )


def call_opening_ids(pieces: Sequence[str | None], openings: Sequence[str]) -> tuple[int, ...]:
    """The ids that can be the first token of a tool call.

    Args:
        pieces: decoded text of every id, special tokens as their text; None for an id without a token.
        openings: how a call of the configured format starts, such as `<tool_call>`.

    Returns:
        ids whose text, without white space on its left, is not empty, and either starts an opening or starts with
        one.

    Example:
        >>> call_opening_ids(["<", " <tool", "tool", " ", "<tool_call>{", None], ["<tool_call>"])
        (0, 1, 4)
    """
    stripped = [(index, (piece or "").lstrip()) for index, piece in enumerate(pieces)]
    return tuple(
        index
        for index, text in stripped
        if text and any(opening.startswith(text) or text.startswith(opening) for opening in openings)
    )
