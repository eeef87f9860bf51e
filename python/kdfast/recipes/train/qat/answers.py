"""What a quantised model makes of the held-out answers, token by token, beside the float model that it was made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kdfast.data import KDDataset, collate_kd_batch
from kdfast.losses import IGNORE_INDEX
from kdfast.recipes.train.objective import Batch
from kdfast.student import right_padded_width

Floats = NDArray[np.float64]

MEASURES = {"kl": "positions", "nll_names": "names", "nll_args": "args"}
"""What is summed over tokens -> the count that its mean is over."""

_CHUNK_ROWS = 256
_MASKS = {"names": "tool_name_mask", "args": "tool_args_mask"}
_SUMS = ("positions", "kl", "same", "names", "nll_names", "args", "nll_args")


@dataclass(frozen=True)
class HeldOut:
    """The held-out rows that arms are compared on.

    Attributes:
        dataset: the rows.
        chosen: their numbers in the dataset, the shortest first.
        records: for each row of the dataset, the number of its record. A record may give two rows; they are no two
            independent observations.
        micro_batch_size: rows of a forward pass.
    """

    dataset: KDDataset
    chosen: tuple[int, ...]
    records: tuple[int, ...]
    micro_batch_size: int

    @classmethod
    def of(cls, dataset: KDDataset, rows: int, micro_batch_size: int) -> HeldOut:
        """The first `rows` rows (0 = all): those of a validation."""
        chosen = range(min(rows or len(dataset), len(dataset)))
        numbers: dict[Any, int] = {}
        records = [numbers.setdefault(dataset.place(int(dataset.rows[row])), len(numbers)) for row in chosen]
        shortest = sorted(chosen, key=lambda row: int(dataset.lengths[row]))
        return cls(dataset, tuple(shortest), tuple(records), micro_batch_size)


@dataclass
class AnswerSums:
    """Sums over the answer tokens of each record, and over all of them; position 0 of a row is left out.

    Attributes:
        records: how many records there are.
        compared: whether there was a model to compare with; else `kl`, `same` and `cosines` say nothing.
        sums: name -> [records]: `positions`, `kl` (sum of KL(reference || model) in nats), `same` (positions at which
            both have the same likeliest id), and count and sum of -log p(label) on tokens of tool names (`names`,
            `nll_names`) and of arguments (`args`, `nll_args`).
        cosines: for each layer (embeddings, blocks, last norm) the sum of the cosines of its hidden states with the
            reference's.
        non_finite: positions with a logit that is NaN or infinite.
    """

    records: int
    compared: bool
    sums: dict[str, Floats] = field(init=False)
    cosines: list[float] = field(default_factory=list)
    non_finite: int = 0

    def __post_init__(self) -> None:
        self.sums = {name: np.zeros(self.records) for name in _SUMS}

    def count(self, name: str) -> int:
        """A count over all records."""
        return int(self.sums[name].sum())

    def mean(self, name: str) -> float | None:
        """The mean of a measure over its tokens; None = there is no such token. It may be NaN."""
        count = self.count(MEASURES[name])
        return float(self.sums[name].sum()) / count if count else None

    def mean_cosines(self) -> list[float | None]:
        """Each layer's mean cosine; None = not a number."""
        means = [total / self.count("positions") for total in self.cosines]
        return [mean if math.isfinite(mean) else None for mean in means]


@torch.no_grad()
def measure_answers(
    model: nn.Module,
    reference: nn.Module | None,
    held_out: HeldOut,
    device: torch.device,
    on_progress: Callable[[int], None],
) -> AnswerSums:
    """Reads the right answers with a model, and compares it with a reference at each answer token.

    Both run in evaluation mode (and stay in it), in float32. Logits exist for a few positions at a time.

    Args:
        model: a model of plain layers.
        reference: the model to compare with; None = none.
        held_out: the rows.
        device: where the models are.
        on_progress: called with the number of rows just done.
    """
    sums = AnswerSums(max(held_out.records, default=-1) + 1, reference is not None)
    models = [model] if reference is None else [model, reference]
    for one in models:
        one.train(False)
    size = held_out.micro_batch_size
    for start in range(0, len(held_out.chosen), size):
        rows = list(held_out.chosen[start : start + size])
        batch = collate_kd_batch(held_out.dataset.__getitems__(rows))
        with torch.autocast(device.type, enabled=False):
            _add(sums, models, batch, [held_out.records[row] for row in rows], device)
        on_progress(len(rows))
    return sums


def _add(
    sums: AnswerSums,
    models: Sequence[nn.Module],
    batch: Batch,
    records: list[int],
    device: torch.device,
) -> None:
    width = right_padded_width(batch["attention_mask"])
    labels = batch["labels"][:, :width]
    mask = (labels != IGNORE_INDEX) & (batch["attention_mask"][:, :width] != 0)
    mask[:, 0] = False  # the first token's hidden state is a hundred times as large as others in many models
    if not bool(mask.any()):
        return
    record = np.asarray(records)[mask.nonzero()[:, 0].numpy()]  # [N]
    parts = {name: batch[key][:, :width][mask].numpy() for name, key in _MASKS.items() if key in batch}
    ids, here = batch["input_ids"][:, :width].to(device), mask.to(device)
    hidden = [_hidden(model, ids, here) for model in models]
    if len(hidden) == 2:
        cosines = [_cosine_sum(*pair) for pair in zip(*hidden, strict=True)]
        sums.cosines = [a + b for a, b in zip(sums.cosines or [0.0] * len(cosines), cosines, strict=True)]
    heads: list[Any] = [model.get_output_embeddings() for model in models]  # type: ignore[operator]
    for start in range(0, len(record), _CHUNK_ROWS):
        chunk = slice(start, start + _CHUNK_ROWS)
        logits = [head(states[-1][chunk]).float() for head, states in zip(heads, hidden, strict=True)]
        values = _of_tokens(logits, labels[mask][chunk].to(device))
        finite = torch.isfinite(logits[0]).all(1)
        sums.non_finite += int((~finite).sum())
        _add_chunk(sums, values, record[chunk], {name: part[chunk] for name, part in parts.items()})


def _add_chunk(
    sums: AnswerSums, values: dict[str, Floats], record: NDArray[Any], parts: dict[str, NDArray[Any]]
) -> None:
    added: dict[str, Floats] = {"positions": np.ones(len(record))}
    added |= {name: value for name, value in values.items() if name != "nll"}
    for name, part in parts.items():
        chosen = part.astype(bool)
        added[name] = chosen.astype(np.float64)
        # a product would turn a NaN elsewhere into a NaN here
        added[f"nll_{name}"] = np.where(chosen, values["nll"], 0.0)
    for name, each in added.items():
        np.add.at(sums.sums[name], record, each)


def _hidden(model: nn.Module, ids: Tensor, mask: Tensor) -> list[Tensor]:
    """The hidden states [N,D] of each layer at the N positions in mask."""
    base: Any = model.base_model
    output = base(input_ids=ids, use_cache=False, output_hidden_states=True)
    return [states[mask].float() for states in output.hidden_states]


def _of_tokens(logits: Sequence[Tensor], labels: Tensor) -> dict[str, Floats]:
    """Per token [M]: `nll`; with a second model's logits also `kl` and `same`."""
    logq = logits[0].log_softmax(1)  # [M,V]
    values = {"nll": -logq.gather(1, labels[:, None])[:, 0]}
    if len(logits) == 2:
        logp = logits[1].log_softmax(1)
        gap = logp - logq
        # p (gap + q / p - 1) sums to the same as p gap, but no summand is negative, so that fp32 keeps a KL of 1e-6.
        values["kl"] = (logp.exp() * (gap + torch.expm1(-gap))).sum(1)
        values["same"] = logits[0].argmax(1) == logits[1].argmax(1)
    return {name: value.cpu().double().numpy() for name, value in values.items()}


def _cosine_sum(own: Tensor, reference: Tensor) -> float:
    # in fp64: 1 - cosine is about 1e-4, and fp32 would leave three digits of it
    own, reference = own.cpu().double(), reference.cpu().double()
    product = (own * reference).sum(1)
    norms = own.norm(dim=1) * reference.norm(dim=1)
    equal = (own == reference).all(1)  # two vectors of zeros are alike
    return float(torch.where(equal, torch.ones_like(product), product / norms).sum())


def float_bytes(model: nn.Module) -> int:
    """Bytes of a model's parameters as they are; a tied one counts once."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
