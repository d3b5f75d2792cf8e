"""safetensors files that depend on nothing but what they hold, written without a second copy in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import BinaryIO

import torch
from torch import Tensor

# The library's names of types, in its order: a file begins with the widest.
_TYPES: Mapping[torch.dtype, str] = MappingProxyType(
    {
        torch.uint64: "U64",
        torch.int64: "I64",
        torch.float64: "F64",
        torch.float32: "F32",
        torch.uint32: "U32",
        torch.int32: "I32",
        torch.bfloat16: "BF16",
        torch.float16: "F16",
        torch.uint16: "U16",
        torch.int16: "I16",
        torch.int8: "I8",
        torch.uint8: "U8",
        torch.bool: "BOOL",
    }
)
_RANKS = {dtype: rank for rank, dtype in enumerate(_TYPES)}


def write_safetensors(file: BinaryIO, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file: the same tensors and metadata give the same bytes.

    The library itself keeps metadata in the changing order of a hash map, and the whole file in memory twice.

    Args:
        file: open for writing.
        tensors: contiguous, on the CPU.
        metadata: of the header.
    """
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    names = sorted(tensors, key=lambda name: (_RANKS[tensors[name].dtype], name))
    end = 0
    for name in names:
        begin, end = end, end + tensors[name].nbytes
        shape = list(tensors[name].shape)
        header[name] = {"dtype": _TYPES[tensors[name].dtype], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little"))
    file.write(text)
    for name in names:
        assert tensors[name].is_contiguous(), name
        if tensors[name].numel():
            file.write(tensors[name].detach().reshape(-1).view(torch.uint8).numpy().data)
