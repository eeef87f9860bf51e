"""Does training under quantisation change what ships? Counts codes that change, or swing, and scales that turn sign."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kdfast.errors import QATError
from kdfast.qat.fake_quantize import weight_quantizers
from kdfast.quantized import Quantized, quantize


@dataclass(frozen=True, kw_only=True)
class CodeChanges:
    """What became of the codes since the phase began. Codes of a block whose scale changed its sign count negated.

    Attributes:
        codes: all codes.
        changed: codes that are others than at the beginning.
        blocks: all scales.
        sign_changes: blocks whose scale has the other sign than at the beginning (`q4_0` only): all weights of such a
            block move to another grid at once.
        flips: codes that changed since the last look.
        returns: of these, the codes that are again what they were two looks ago: they swing between two values.
    """

    codes: int
    changed: int
    blocks: int
    sign_changes: int
    flips: int
    returns: int

    @property
    def changed_fraction(self) -> float:
        """Share of codes that are others than at the beginning."""
        return self.changed / max(self.codes, 1)

    def to_json(self) -> dict[str, Any]:
        """As JSON values, with the share."""
        return asdict(self) | {"changed_fraction": self.changed_fraction}


@dataclass
class _Seen:
    """The codes of a tensor as seen before: at the beginning, last time, and the time before."""

    first: Tensor
    negative: Tensor
    last: Tensor
    before_last: Tensor


class CodeWatch:
    """Remembers the codes of a model under quantisation, and counts what changes; 3 bytes a weight, on the CPU.

    Args:
        model: a model after `apply_qat_to_model`, when the phase begins.

    Example:
        >>> from kdfast.config.quant import QuantConfig
        >>> from kdfast.qat.prepare import apply_qat_to_model
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> with torch.no_grad():
        ...     _ = layer.weight.copy_(torch.tensor([[127.0, 3.0]]))
        >>> watch = CodeWatch(apply_qat_to_model(layer, QuantConfig()))
        >>> with torch.no_grad():
        ...     _ = layer.weight[0, 1].fill_(5.0)
        >>> watch.look(layer).changed_fraction
        0.5
    """

    def __init__(self, model: nn.Module) -> None:
        self._seen = {name: self._first(quantized) for name, quantized in _codes(model).items()}

    @staticmethod
    def _first(quantized: Quantized) -> _Seen:
        codes = _signed(quantized)
        return _Seen(codes, _negative(quantized), codes, codes)

    def look(self, model: nn.Module) -> CodeChanges:
        """Counts the changes since the beginning and since the last look.

        Args:
            model: the model that the watch was made of.

        Raises:
            QATError: it is another model.
        """
        now = _codes(model)
        if now.keys() != self._seen.keys():
            strange = sorted(now.keys() ^ self._seen.keys())[0]
            raise QATError(f"the model quantises other tensors than when the watch began: {strange}")
        sums = dict.fromkeys(("codes", "changed", "blocks", "sign_changes", "flips", "returns"), 0)
        for name, quantized in now.items():
            seen, codes = self._seen[name], _signed(quantized)
            flipped = codes != seen.last
            sums["codes"] += codes.numel()
            sums["changed"] += int((codes != seen.first).sum())
            sums["blocks"] += seen.negative.numel()
            sums["sign_changes"] += int((_negative(quantized) != seen.negative).sum())
            sums["flips"] += int(flipped.sum())
            sums["returns"] += int((flipped & (codes == seen.before_last)).sum())
            seen.before_last, seen.last = seen.last, codes
        return CodeChanges(**sums)

    def state_dict(self) -> dict[str, Tensor]:
        """What is remembered, for a checkpoint."""
        return {
            f"{name}.{part}": getattr(seen, part)
            for name, seen in self._seen.items()
            for part in ("first", "negative", "last", "before_last")
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores what `state_dict` gave.

        Raises:
            QATError: it is of another model.
        """
        if state.keys() != self.state_dict().keys():
            strange = sorted(state.keys() ^ self.state_dict().keys())[0]
            raise QATError(f"the remembered codes are of another model: {strange}")
        for name, seen in self._seen.items():
            for part in ("first", "negative", "last", "before_last"):
                setattr(seen, part, state[f"{name}.{part}"])


def _codes(model: nn.Module) -> dict[str, Quantized]:
    found = {}
    for name, (quantizer, weight) in weight_quantizers(model).items():
        made = quantize(weight.detach(), quantizer.format, scales=quantizer.scales)
        found[name] = Quantized(made.format, made.codes.cpu(), made.scales.cpu())
    if not found:
        raise QATError(
            f"the model is not under quantisation; call apply_qat_to_model first: {type(model).__name__}"
        )
    return found


def _negative(quantized: Quantized) -> Tensor:
    return quantized.scales < 0


def _signed(quantized: Quantized) -> Tensor:
    """Codes as multiples of a positive scale: [out,in] int8."""
    rows, columns = quantized.codes.shape
    blocks = quantized.codes.view(rows, -1, quantized.block)
    return torch.where(_negative(quantized)[..., None], -blocks, blocks).view(rows, columns)
