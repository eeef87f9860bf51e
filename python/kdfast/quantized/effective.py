"""The weight that a layer really multiplies by, for code that takes it without calling the layer."""

from __future__ import annotations

from torch import Tensor, nn


def effective_weight(module: nn.Module) -> Tensor:
    """The weight that the layer's own forward uses: fake-quantised while quantisation is on, else its parameter.

    Every loss that projects rows by itself must take the output layer's weight from here. A model whose output layer
    is quantised in its forward only would train one model and ship another.

    Args:
        module: a layer with a `weight`, such as `model.lm_head`.

    Returns:
        [out,in] on the graph of the parameter.

    Example:
        >>> layer = nn.Linear(2, 3)
        >>> effective_weight(layer) is layer.weight
        True
    """
    # A layer under quantisation has this method, see `kdfast.qat.fake_quantize`; this module may not import it.
    own = getattr(module, "effective_weight", None)
    weight: Tensor = module.weight if own is None else own()  # type: ignore[assignment]
    return weight
