"""A training state comes back bit for bit; nothing that is loaded is ever run as code."""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketclip.checkpoint import load, load_state, save_state
from pocketclip.data.publish import PublishError
from pocketclip.fit import OptimConfig, make_adamw

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.uint8, torch.bool)


@st.composite
def tensors(draw):
    shape = draw(st.lists(st.integers(0, 3), max_size=4))
    values = torch.randint(0, 200, shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    tensor = (values / 7 - 9).to(draw(st.sampled_from(DTYPES)))
    return tensor.transpose(0, -1) if tensor.ndim > 1 and draw(st.booleans()) else tensor


keys = st.text(max_size=5) | st.integers(-3, 300)
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
trees = st.recursive(
    plain | tensors(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=12,
)


def assert_same(tree, other):
    assert type(tree) is type(other)
    if isinstance(tree, torch.Tensor):
        assert tree.dtype == other.dtype
        assert tree.shape == other.shape
        assert torch.equal(tree, other)
    elif isinstance(tree, dict):
        assert list(tree) == list(other)
        for key in tree:
            assert_same(tree[key], other[key])
    elif isinstance(tree, list | tuple):
        assert len(tree) == len(other)
        for one, two in zip(tree, other, strict=True):
            assert_same(one, two)
    else:
        assert tree == other


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.text(max_size=5), trees, max_size=4))
def test_a_tree_comes_back_as_it_was(tree):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        save_state(path, tree)
        assert_same(load_state(path), tree)
        data = path.read_bytes()
        save_state(path, tree)
        assert path.read_bytes() == data


def test_an_optimizer_comes_back(tmp_path):
    model = torch.nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
    optimizer = make_adamw(model, config=OptimConfig())
    model(torch.randn(1, 2, 5, 5)).sum().backward()
    optimizer.step()
    state = {"step": 1, "optimizer": optimizer.state_dict(), "rng": {"cpu": torch.get_rng_state()}}
    save_state(tmp_path / "state", state)
    assert_same(load_state(tmp_path / "state"), state)


class Code:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("write", ["pickle", "torch", "legacy torch"])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, write):
    path, made = tmp_path / "state.safetensors", tmp_path / "made by code"
    if write == "pickle":
        path.write_bytes(pickle.dumps({"step": Code(made)}))
    else:
        torch.save({"step": Code(made)}, path, _use_new_zipfile_serialization=write == "torch")
    with pytest.raises(ValueError, match=r"state\.safetensors is not a whole"):
        load_state(path)
    with pytest.raises(ValueError, match=r"state\.safetensors (holds Python objects|is a pickle)"):
        load(path)
    assert not made.exists()
    if write == "pickle":
        pickle.loads(path.read_bytes())  # noqa: S301 - the trap is armed
        assert made.exists()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9999])
def test_a_cut_state_is_told_with_its_remedy(tmp_path, share):
    path = tmp_path / "state.safetensors"
    save_state(path, {"model": {"weight": torch.randn(100, 100)}})
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(
        ValueError, match=r"state\.safetensors is not a whole training state .*delete it to start"
    ):
        load_state(path)


@pytest.mark.parametrize(
    ("metadata", "saying"),
    [
        ({}, "is None version None"),
        ({"format": "pocketclip", "version": "1"}, "is 'pocketclip' version '1'"),
        ({"format": "pocketclip-state", "version": "9"}, "version '9', this release reads .* version 1"),
        ({"format": "pocketclip-state", "version": "1"}, r"is damaged \(KeyError\('tree'\)\)"),
        ({"format": "pocketclip-state", "version": "1", "tree": "{"}, "is damaged"),
        ({"format": "pocketclip-state", "version": "1", "tree": "[]"}, "is damaged"),
        ({"format": "pocketclip-state", "version": "1", "tree": '{"tensor": "gone"}'}, "is damaged .*gone"),
        ({"format": "pocketclip-state", "version": "1", "tree": '{"code": "x"}'}, "unknown kind 'code'"),
    ],
)
def test_another_file_or_a_damaged_header_is_told(tmp_path, metadata, saying):
    path = tmp_path / "state.safetensors"
    path.write_bytes(safetensors.torch.save({"a": torch.zeros(1)}, metadata=metadata))
    with pytest.raises(ValueError, match=saying) as caught:
        load_state(path)
    assert "delete it to start this run from its beginning" in str(caught.value)


def test_a_full_disk_leaves_the_old_state(tmp_path):
    path = tmp_path / "state.safetensors"
    save_state(path, {"step": 1})
    (tmp_path / ".state.safetensors.partial").symlink_to("/dev/full")
    with pytest.raises(PublishError, match=r"disk full while writing .*state\.safetensors"):
        save_state(path, {"step": 2, "weight": torch.zeros(100_000)})
    assert load_state(path) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_what_is_no_plain_value_is_refused_with_its_place(tmp_path):
    with pytest.raises(TypeError, match=r"not set \(at state/model/0\)"):
        save_state(tmp_path / "state", {"model": [{1, 2}]})
    assert list(tmp_path.iterdir()) == []
