"""Linear layers for a handful of rows: on a CPU their weights are put once into the order in which they are read.

A product of 8 rows with a matrix is bound by memory, and torch rearranges the matrix at every call; oneDNN's own order,
which torch's compiler uses too, spares that. It takes the weights' memory once more.

Shape suffixes: N rows, C and D channels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pocketclip.models.attention_pool import CrossAttention


class Linears:
    """Linear layers of a model that is no longer changed, prepared when they are first used.

    Args:
        rows: about as many as there will be.
    """

    def __init__(self, *, rows: int) -> None:
        self._rows = rows
        self._ready: dict[nn.Module, Callable[[Tensor], Tensor]] = {}

    def __call__(self, layer: nn.Linear, x_NC: Tensor) -> Tensor:
        """The layer's output, [N, C] -> [N, D]."""
        if not _packs(layer.weight):
            return layer(x_NC)
        if layer not in self._ready:
            self._ready[layer] = _packed(layer.weight, layer.bias, rows=self._rows)
        return self._ready[layer](x_NC)

    def query(self, attention: CrossAttention, x_NC: Tensor) -> Tensor:
        """The queries of attention to something as wide as the tokens, [N, C] -> [N, C]."""
        width = attention.width
        weight, bias = attention.weight[:width], attention.bias[:width]
        if not _packs(weight):
            return F.linear(x_NC, weight, bias)
        if attention not in self._ready:
            self._ready[attention] = _packed(weight, bias, rows=self._rows)
        return self._ready[attention](x_NC)


def _packs(weight: Tensor) -> bool:
    """Whether oneDNN can take the weight: float32 on a CPU, computed in float32."""
    on_cpu = weight.device.type == "cpu" and weight.dtype == torch.float32
    return on_cpu and torch.backends.mkldnn.is_available() and not torch.is_autocast_enabled("cpu")


def _packed(weight_DC: Tensor, bias_D: Tensor | None, *, rows: int) -> Callable[[Tensor], Tensor]:
    packed = torch.ops.mkldnn._reorder_linear_weight(weight_DC.detach().contiguous(), rows)
    apply = torch.ops.mkldnn._linear_pointwise
    return lambda x_NC: apply(x_NC, packed, bias_D, "none", [], "")
