"""safetensors bytes that depend on nothing but what they hold."""

from __future__ import annotations

import json
from collections.abc import Mapping

import safetensors.torch
from torch import Tensor


def serialize(tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str]) -> bytes:
    """A safetensors file: the same tensors and metadata give the same bytes.

    The library keeps metadata in the changing order of a hash map, so the header is written anew with it sorted.

    Args:
        tensors: contiguous, on the CPU, none sharing memory with another.
        metadata: of the header.
    """
    data = memoryview(safetensors.torch.save(dict(tensors), metadata=dict(metadata)))
    start = 8 + int.from_bytes(data[:8], "little")
    layout = json.loads(bytes(data[8:start]))
    layout["__metadata__"] = dict(sorted(metadata.items()))
    header = json.dumps(layout, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return b"".join([len(header).to_bytes(8, "little"), header, data[start:]])
