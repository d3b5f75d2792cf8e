"""Files of weights from outside: what is taken off, one sentence for whatever is none, and nothing is executed."""

from __future__ import annotations

import argparse
import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pocketclip.checkpoint.weights import read_weights

STATE = {
    "visual.weight": torch.arange(600.0).reshape(20, 30),
    "text.bias": torch.ones(4),
    "scale": torch.tensor(2.0),
}


def written(path: Path, content: object, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def same(found: Any, expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], expected[name]) for name in expected
    )


def refused(path: Path, *, saying: str) -> str:
    with pytest.raises(ValueError, match=saying) as caught:
        read_weights(path)
    sentence = str(caught.value)
    assert sentence.startswith(str(path))
    assert "\n" not in sentence
    assert len(sentence) < 400
    return sentence


# What is read


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.bin", "a.ckpt", "a", "a.safetensors"])
def test_what_a_file_is_does_not_depend_on_its_name(tmp_path, name):
    assert same(read_weights(written(tmp_path / name, STATE)).tensors, STATE)
    (tmp_path / name).write_bytes(safetensors.torch.save(STATE))
    assert same(read_weights(tmp_path / name).tensors, STATE)


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "old"])
def test_every_form_of_torchs_files_is_read(tmp_path, options):
    path = written(tmp_path / "a.pt", OrderedDict(STATE), **options)
    weights = read_weights(path)
    assert same(weights.tensors, STATE)
    assert weights.notes == ()


def test_checksums_that_were_switched_off_are_no_damage(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        written(tmp_path / "a.pt", STATE)
    finally:
        torch.serialization.set_crc32_options(True)
    assert same(read_weights(tmp_path / "a.pt").tensors, STATE)


OPTIMIZER = torch.optim.AdamW(nn.Linear(2, 2).parameters()).state_dict()


@pytest.mark.parametrize(
    ("content", "notes"),
    [
        ({"state_dict": STATE}, ["its entry 'state_dict' was taken"]),
        (
            {
                "epoch": 3,
                "name": "run",
                "state_dict": STATE,
                "optimizer": OPTIMIZER,
                "scaler": {"scale": 65536.0},
            },
            ["its entry 'state_dict' was taken"],
        ),
        ({"model": STATE, "step": 5}, ["its entry 'model' was taken"]),
        ({"module": STATE, "global_steps": 9}, ["its entry 'module' was taken"]),
        (
            {"model": {"state_dict": STATE}},
            ["its entry 'model' was taken", "its entry 'state_dict' was taken"],
        ),
    ],
)
def test_a_training_checkpoint_is_unwrapped_and_that_is_said(tmp_path, content, notes):
    weights = read_weights(written(tmp_path / "a.pt", content))
    assert same(weights.tensors, STATE)
    assert [note.removeprefix("of a training checkpoint ") for note in weights.notes] == notes


@pytest.mark.parametrize("name", ["state_dict_ema", "model_ema", "ema"])
def test_the_moving_average_is_taken_unless_asked_otherwise(tmp_path, name):
    average = {key: value + 1 for key, value in STATE.items()}
    path = written(tmp_path / "a.pt", {"state_dict": STATE, name: average})
    weights = read_weights(path)
    assert same(weights.tensors, average)
    assert weights.notes == (f"of a training checkpoint its entry '{name}' was taken, the moving average",)
    weights = read_weights(path, moving_average=False)
    assert same(weights.tensors, STATE)
    assert "the last weights, not the moving average" in weights.notes[0]
    alone = read_weights(written(path, {name: average}), moving_average=False)
    assert same(alone.tensors, average)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda name: f"module.{name}",
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: f"_orig_mod.module.{name}",
        lambda name: f"model.{name}",
        lambda name: f"model.student.module.{name}",
        lambda name: name.replace(".", "._fsdp_wrapped_module."),
        lambda name: "_fsdp_wrapped_module." + name.replace(".", "._checkpoint_wrapped_module."),
    ],
)
def test_what_wrappers_put_into_names_is_taken_off(tmp_path, wrap):
    weights = read_weights(written(tmp_path / "a.pt", {wrap(name): value for name, value in STATE.items()}))
    assert same(weights.tensors, STATE)
    assert "taken off the names: " in weights.notes[0]


def test_torchs_own_average_of_a_model_is_read(tmp_path):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.visual, self.text = nn.Linear(2, 2), nn.Linear(2, 2)

    averaged = torch.optim.swa_utils.AveragedModel(Model())
    weights = read_weights(written(tmp_path / "a.pt", averaged.state_dict()))
    assert weights.tensors.keys() == {"visual.weight", "visual.bias", "text.weight", "text.bias"}


def test_a_compiled_and_wrapped_model_is_read(tmp_path):
    model = nn.ModuleDict({"visual": nn.Linear(2, 2), "text": nn.Linear(2, 2)})
    wrapped = torch.compile(model)
    assert "_orig_mod.text.bias" in wrapped.state_dict()
    weights = read_weights(written(tmp_path / "a.pt", wrapped.state_dict()))
    assert same(weights.tensors, model.state_dict())


def test_a_name_that_wrappers_make_twice_is_told(tmp_path):
    path = written(
        tmp_path / "a.pt", {"module.visual.x": torch.ones(1), "visual.x": torch.zeros(1), "y": torch.ones(1)}
    )
    refused(path, saying=r"holds visual\.x twice, once as")


# What is not


class Code:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".safetensors"])
@pytest.mark.parametrize("write", ["pickle", "torch", "old torch"])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, write, suffix):
    path, made = tmp_path / f"a{suffix}", tmp_path / "made by code"
    content = {"state_dict": STATE, "extra": Code(made)}
    if write == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=write == "torch")
    refused(
        path,
        saying="(holds Python objects besides tensors|is a pickle that is no torch file).*save the weights alone",
    )
    assert not made.exists()
    if write != "pickle" and suffix != ".safetensors":
        torch.load(path, weights_only=False)  # the trap is armed
        assert made.exists()


def test_a_pickle_of_another_protocol_is_told(tmp_path):
    path = written(tmp_path / "a.pt", STATE, pickle_protocol=4)
    refused(path, saying="cannot be read without running what is in it.*save the weights alone")


def test_objects_besides_tensors_are_named(tmp_path):
    path = written(tmp_path / "a.pt", {"state_dict": STATE, "args": argparse.Namespace(lr=0.1)})
    refused(
        path,
        saying=r"argparse\.Namespace.*nothing of it was: save the weights alone: torch\.save\(model\.state_dict",
    )
    path = written(tmp_path / "a.pt", {"state_dict": STATE, "best": np.float64(0.5)})
    refused(path, saying="holds Python objects besides tensors .*numpy")
    path = written(tmp_path / "a.pt", nn.Linear(2, 2))
    refused(path, saying=r"holds Python objects besides tensors .*torch\.nn\.modules\.linear\.Linear")


@pytest.mark.parametrize(
    ("content", "saying"),
    [
        (b"", "is empty: copy or download it again"),
        (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "is a web page, not weights"),
        (b"\n <html lang='en'>Sign in", "is a web page, not weights"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is a web page, not weights"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
            "is a git-lfs pointer, not the weights: fetch them with `git lfs pull`",
        ),
        (b'{"model": "S0"}', "is a text file, not weights"),
        ("# M\u00f6del card\n".encode() * 100, "is a text file, not weights"),
        (b"PK\x03\x04 a zip file without its end", r"is cut \(a torch file without its end\)"),
        (bytes(4096), "is neither a safetensors nor a torch file"),
        (b"\xff" * 4096, "is neither a safetensors nor a torch file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "is neither a safetensors nor a torch file"),
        (pickle.dumps({"a": 1}), "is a pickle that is no torch file, or is cut"),
    ],
)
@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_something_else_under_the_name_is_told(tmp_path, content, saying, name):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, saying=saying)


def test_other_archives_are_told(tmp_path):
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for member in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"archive/{member}", b"raise SystemExit")
    refused(path, saying="is a TorchScript program, not weights")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mobileclip_s0.pt", b"inside")
    refused(path, saying="is a zip file without weights of torch: give the file that is in it")
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    refused(tmp_path / "a.npz", saying="is a zip file without weights of torch")


@pytest.mark.parametrize(
    ("content", "saying"),
    [
        ({}, "holds no weights by name but nothing"),
        ({"state_dict": {}}, "holds no weights by name but nothing"),
        ([torch.zeros(2)], "holds no weights by name but a list"),
        (torch.zeros(2), "holds no weights by name but a Tensor"),
        ({"epoch": 3, "loss": 0.5}, r"no state dict: epoch \(int\), loss \(float\) are no tensors"),
        ({f"k{i}": i for i in range(9)}, r"k4 \(int\) and 4 more are no tensors"),
    ],
)
def test_a_torch_file_without_weights_is_told(tmp_path, content, saying):
    refused(written(tmp_path / "a.pt", content), saying=saying)


@pytest.mark.parametrize("form", ["zip", "old", "safetensors"])
@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_a_cut_file_is_told(tmp_path, form, share):
    path = tmp_path / "a.pt"
    if form == "safetensors":
        path.write_bytes(safetensors.torch.save(STATE))
    else:
        written(path, STATE, _use_new_zipfile_serialization=form == "zip")
    data = path.read_bytes()
    path.write_bytes(data[: max(1, int(len(data) * share))])
    refused(path, saying="copy or download it again")


def archived() -> bytes:
    buffer = io.BytesIO()
    torch.save(STATE, buffer)
    return buffer.getvalue()


ARCHIVE = archived()


@given(place=st.integers(0, len(ARCHIVE) - 1), bit=st.integers(0, 7))
@settings(max_examples=200)
def test_a_damaged_bit_is_told_or_does_not_matter(tmp_path_factory, place, bit):
    damaged = bytearray(ARCHIVE)
    damaged[place] ^= 1 << bit
    path = tmp_path_factory.mktemp("bit") / "a.pt"
    path.write_bytes(damaged)
    try:
        weights = read_weights(path)
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:
        assert same(weights.tensors, STATE)  # padding, or a header that nobody reads


@given(
    data=st.binary(max_size=300),
    head=st.sampled_from([b"", b"\x80\x02", b"\x80\x04", b"PK\x03\x04", b"\x7b"]),
)
@settings(max_examples=200)
def test_no_bytes_whatever_make_anything_but_a_sentence(tmp_path_factory, data, head):
    path = tmp_path_factory.mktemp("bytes") / "a.pt"
    path.write_bytes(head + data)
    with pytest.raises(ValueError, match=str(path)):
        read_weights(path)


def test_a_missing_file_is_the_systems_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_weights(tmp_path / "gone.pt")
