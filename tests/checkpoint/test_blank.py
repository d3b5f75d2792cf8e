"""A model without weights has every name, shape and type, and costs hardly anything."""

from __future__ import annotations

import pytest
import torch

from pocketclip.checkpoint.blank import blank
from pocketclip.models import VARIANTS, Clip

TINY = [name for name in VARIANTS if name.startswith("pocketclip_tiny")]


@pytest.mark.parametrize("name", TINY)
def test_it_has_the_names_shapes_and_types_of_the_model(name):
    ours, expected = blank(VARIANTS[name].model), Clip(VARIANTS[name].model)
    assert all(value.is_meta for value in ours.state_dict().values())
    found, wanted = ours.state_dict(), expected.state_dict()
    assert found.keys() == wanted.keys()
    for key, value in found.items():
        assert (value.shape, value.dtype) == (wanted[key].shape, wanted[key].dtype), key
    assert str(ours) == str(expected)


def test_torchs_random_numbers_are_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    blank(VARIANTS["pocketclip_tiny_vit"].model)
    assert torch.equal(torch.rand(3), expected)


def test_no_variant_needs_torchs_compiler(run_python):
    """Which takes seconds to import, longer than loading a small checkpoint."""
    program = """
import sys
from pocketclip.checkpoint.blank import blank
from pocketclip.models import VARIANTS
before = "torch._dynamo" in sys.modules
for row in VARIANTS.values():
    blank(row.model)
print(before, "torch._dynamo" in sys.modules)
"""
    ran = run_python("-c", program)
    assert ran.code == 0, ran.err
    assert ran.out.split() == ["False", "False"]
