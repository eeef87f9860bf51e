"""Which tensors of a model are quantised, and how: Linear and Embedding weights; norms and biases stay float."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch import nn

from kdfast.config.quant import FormatName, QuantConfig
from kdfast.errors import ConfigError, QATError
from kdfast.quantized.formats import FORMATS


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor to quantise.

    Attributes:
        name: the parameter's name in the model; of a tied one its first name, under which it is saved.
        modules: names of the layers that use it; two or more = tied.
        format: the name of its format.
        shape: out, in.
        embedding: whether a layer that uses it is an embedding.
    """

    name: str
    modules: tuple[str, ...]
    format: FormatName
    shape: tuple[int, int]
    embedding: bool

    @property
    def stored_bytes(self) -> int:
        """Bytes in the deployed file."""
        return FORMATS[self.format].stored_bytes(*self.shape)


@dataclass(frozen=True)
class QuantPlan:
    """What becomes of each parameter of a model.

    Attributes:
        tensors: those to quantise, in the model's order.
        floats: the names of those that stay float.
    """

    tensors: tuple[PlannedTensor, ...]
    floats: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the tensors to quantise."""
        return tuple(tensor.name for tensor in self.tensors)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the quantised tensors in the deployed file."""
        return sum(tensor.stored_bytes for tensor in self.tensors)

    def only(self, names: Collection[str]) -> QuantPlan:
        """The same plan for some of its tensors; the others stay float.

        Raises:
            QATError: a name is not in the plan.
        """
        unknown = sorted(set(names) - set(self.names))
        if unknown:
            raise QATError(f"the plan has no such tensor, it has {', '.join(self.names)}: {unknown[0]}")
        kept = tuple(tensor for tensor in self.tensors if tensor.name in names)
        rest = tuple(name for name in self.names if name not in names)
        return QuantPlan(kept, (*self.floats, *rest))


def plan_model(model: nn.Module, config: QuantConfig) -> QuantPlan:
    """Which tensors of a model are quantised, and how.

    Args:
        model: any model of torch's Linear and Embedding layers; weights are not read.
        config: the config's section; `enabled` is not looked at.

    Raises:
        ConfigError: a format's blocks do not divide a tensor's width; names the tensor and its shape.
        QATError: the model has no such layer.

    Example:
        >>> model = nn.Sequential(nn.Embedding(4, 32), nn.Linear(32, 64), nn.LayerNorm(64))
        >>> plan = plan_model(model, QuantConfig(format="q4_0"))
        >>> [(tensor.name, tensor.format) for tensor in plan.tensors], len(plan.floats)
        ([('0.weight', 'q8_0'), ('1.weight', 'q4_0')], 3)
    """
    users: dict[int, list[str]] = {}
    embeddings: set[int] = set()
    outputs: set[int] = set()
    head = _output_layer(model)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            key = id(module.weight)
            users.setdefault(key, []).append(name)
            if isinstance(module, nn.Embedding):
                embeddings.add(key)
            if module is head:
                outputs.add(key)
    tensors: list[PlannedTensor] = []
    floats: list[str] = []
    for name, parameter in model.named_parameters():
        key = id(parameter)
        own_key = key in embeddings | outputs
        chosen = config.embedding_format if own_key else config.format
        if key not in users or chosen is None:
            floats.append(name)
            continue
        rows, columns = parameter.shape
        _check_width(name, (rows, columns), chosen, "quant.embeddings" if own_key else "quant.format")
        tensors.append(PlannedTensor(name, tuple(users[key]), chosen, (rows, columns), key in embeddings))
    if not tensors:
        raise QATError(
            f"the model has no Linear or Embedding layer to quantise; give another model: {type(model).__name__}"
        )
    return QuantPlan(tuple(tensors), tuple(floats))


def _output_layer(model: nn.Module) -> nn.Module | None:
    """The output layer: what a Hugging Face model says it is, else the layer called `lm_head`."""
    ask = getattr(model, "get_output_embeddings", None)
    found: nn.Module | None = ask() if callable(ask) else getattr(model, "lm_head", None)
    return found


def _check_width(name: str, shape: tuple[int, int], format_name: FormatName, key: str) -> None:
    block = FORMATS[format_name].block_of(shape[1])
    if not shape[1] or shape[1] % block:
        other = "int8 or none" if key == "quant.embeddings" else "int8_channel"
        raise ConfigError(
            f"{key}: {format_name} has blocks of {block or 1} weights, which do not divide the width of a tensor; "
            f"choose {other}, or a student of another width: {name} {list(shape)}"
        )
