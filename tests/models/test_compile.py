"""Every variant compiles as one graph, trained and folded, with and without gradient checkpointing."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch

from pocketclip.models import Clip, fold

pytestmark = pytest.mark.slow
# The tracer and the autograd that every backend shares; no compiler of C++ or CUDA is needed.
BACKEND = "aot_eager"


@pytest.fixture(autouse=True)
def _nothing_compiled_before() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@torch.no_grad()
def test_folded_and_compiled_it_computes_the_same(narrow, batch, scramble, relative_error) -> None:
    model = scramble(Clip(narrow.model))
    compiled = torch.compile(fold(model), fullgraph=True, backend=BACKEND)
    inputs = batch(narrow, 2)
    for ours, theirs in zip(compiled(*inputs), model(*inputs), strict=True):
        assert relative_error(ours, theirs) < 1e-5


def test_recomputing_and_compiled_it_trains_the_same(narrow, batch) -> None:
    plain = Clip(narrow.model).train()
    other = copy.deepcopy(plain)
    other.set_gradient_checkpointing(True)
    inputs = batch(narrow, 4)
    for call in (plain, torch.compile(other, fullgraph=True, backend=BACKEND)):
        image_BD, text_BD, scale = call(*inputs)
        (scale * image_BD * text_BD.roll(1, 0)).sum().backward()
    for (name, ours), theirs in zip(other.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5, msg=name)
    for (name, ours), theirs in zip(other.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6, msg=name)
