"""The writer of safetensors files against the library's."""

from __future__ import annotations

import io
import json

import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from pocketclip.checkpoint.layout import write_safetensors

TYPES = (
    torch.uint64, torch.int64, torch.float64, torch.float32, torch.uint32, torch.int32, torch.bfloat16,
    torch.float16, torch.uint16, torch.int16, torch.int8, torch.uint8, torch.bool,
)  # fmt: skip
SHAPES = ((), (3,), (2, 3), (0, 4), (1, 1, 2))


def tensor(dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    return (
        (torch.arange(max(1, torch.Size(shape).numel())) % 7)[: torch.Size(shape).numel()]
        .reshape(shape)
        .to(dtype)
    )


@given(
    named=st.dictionaries(
        st.text(min_size=1, max_size=6).filter(lambda name: name != "__metadata__" and name.isprintable()),
        st.tuples(st.sampled_from(TYPES), st.sampled_from(SHAPES)),
        max_size=8,
    )
)
def test_the_bytes_are_the_librarys_but_for_the_order_of_metadata(named):
    tensors = {name: tensor(*kind) for name, kind in named.items()}
    metadata = {"b": "2", "a": "\u00fc"}
    file = io.BytesIO()
    write_safetensors(file, tensors, metadata=metadata)
    ours, theirs = file.getvalue(), safetensors.torch.save(tensors, metadata=metadata)
    headers = [json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]) for data in (ours, theirs)]
    assert headers[0] == headers[1]
    assert list(headers[0]["__metadata__"]) == ["a", "b"]
    assert [name for name in headers[0] if name != "__metadata__"] == [
        name for name in headers[1] if name != "__metadata__"
    ]
    assert (
        ours[8 + int.from_bytes(ours[:8], "little") :] == theirs[8 + int.from_bytes(theirs[:8], "little") :]
    )
    read = safetensors.torch.load(ours)
    assert read.keys() == tensors.keys()
    for name, value in tensors.items():
        assert (read[name].dtype, read[name].shape) == (value.dtype, value.shape)
        assert torch.equal(read[name], value)
