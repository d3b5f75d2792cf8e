"""Files of torch.save: what torch wrote is read, what we write torch reads, and nothing in them is ever run."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketclip.data.foreign.torch_file import read_torch_file, to_bfloat16, write_torch_file

torch = pytest.importorskip("torch")


def saved(value: object, **options) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def zipped(program: bytes, **data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        for name, content in data.items():
            archive.writestr(f"archive/data/{name}", content)
    return file.getvalue()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_tensors_of_every_type_come_out_as_float32(dtype):
    tensor = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    arrays = read_torch_file(saved({"a": tensor, "b": tensor[0]}))
    assert {name: array.dtype for name, array in arrays.items()} == {"a": np.float32, "b": np.float32}
    np.testing.assert_array_equal(arrays["a"], tensor.float().numpy())
    np.testing.assert_array_equal(arrays["b"], tensor[0].float().numpy())


def test_views_of_one_storage_come_out_as_what_they_show():
    base = torch.arange(24.0).reshape(6, 4)
    views = {"turned": base.T, "part": base[2:4, 1:], "every second": base[::2], "again": base}
    arrays = read_torch_file(saved(views))
    for name, tensor in views.items():
        np.testing.assert_array_equal(arrays[name], tensor.numpy())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_of_pickle(protocol):
    tensor = torch.randn(2, 3)
    arrays = read_torch_file(saved({"x": tensor}, pickle_protocol=protocol))
    np.testing.assert_array_equal(arrays["x"], tensor.numpy())


@settings(max_examples=15)
@given(st.lists(st.lists(st.floats(-4, 4, width=32), min_size=3, max_size=3), min_size=1, max_size=5))
def test_torch_reads_what_we_write_without_running_code(rows):
    array = np.array(rows, dtype=np.float32)
    data = write_torch_file({"image_emb": array, "text_emb": array[:1]})
    loaded = torch.load(io.BytesIO(data), weights_only=True)
    assert list(loaded) == ["image_emb", "text_emb"]
    assert loaded["image_emb"].dtype == torch.bfloat16
    assert torch.equal(loaded["image_emb"], torch.tensor(array).bfloat16())
    np.testing.assert_array_equal(read_torch_file(data)["text_emb"], loaded["text_emb"].float().numpy())
    assert data == write_torch_file({"image_emb": array, "text_emb": array[:1]})


@given(st.floats(-(2.0**126), 2.0**126, width=32))
def test_rounding_is_torchs(value):
    bits = to_bfloat16(np.array([value], dtype=np.float32))
    assert bits[0] == torch.tensor([value]).bfloat16().view(torch.uint16).item()


class Canary:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(self.path),))


def test_code_is_refused_and_not_run(tmp_path):
    canary = tmp_path / "ran"
    program = pickle.dumps({"image_emb": Canary(canary)}, protocol=2)
    with pytest.raises(ValueError, match=r"it names posix\.mkdir"):
        read_torch_file(zipped(program))
    assert not canary.exists()
    pickle.loads(program)  # noqa: S301 - ours; it shows that the canary sings
    assert canary.exists()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.", "it names os.system"),
        (b"cbuiltins\neval\n(S'1'\ntR.", "it names builtins.eval"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "it names os.system"),
        (b"(S'true'\nios\nsystem\n.", "opcode STRING"),
        (b"\x80\x02ctorch\nload\n.", "it names torch.load"),
        (b"\x80\x02ctorch\nBFloat16Storage\n)R.", "it builds"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01tR.", "it builds"),
        (b"\x80\x02}X\x01\x00\x00\x00ah\x05s.", "no dict of tensors"),  # a memo that is not there
        (b"\x80\x02R.", "takes more than there is"),
        (b"\x80\x02s.", "takes more than there is"),
        (b"\x80\x02}", "no dict of tensors"),  # no end
        (b"\x80\x02t.", "no dict of tensors"),  # no mark
        (b"", "no dict of tensors"),
        (b"\xff\xfe", "no dict of tensors"),
        (b"\x80\x02}X\x01\x00\x00\x00aK\x01s.", "no dict of names to tensors"),
        (b"\x80\x02]" + b"}" * 100, "opcode EMPTY_LIST"),
        (b"\x80\x02" + b"}" * (1 << 20), "longer than that of any"),
    ],
)
def test_programs_that_describe_no_tensors_are_refused(program, message):
    with pytest.raises(ValueError, match=message):
        read_torch_file(zipped(program))


def tensor_program(
    *, size: int = 4, offset: int = 0, shape: int = 4, stride: int = 1, number: bytes = b"0"
) -> bytes:
    """A dict of one tensor of one axis."""

    def integer(value: int) -> bytes:
        return b"J" + value.to_bytes(4, "little", signed=True)

    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX" + len(number).to_bytes(4, "little") + number
    tail = (
        integer(offset)
        + integer(shape)
        + b"\x85"
        + integer(stride)
        + b"\x85\x89ccollections\nOrderedDict\n)RtRs."
    )
    head = b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n("
    return head + storage + b"X\x03\x00\x00\x00cpu" + integer(size) + b"tQ" + tail


def test_the_program_of_these_tests_is_a_good_one():
    array = np.arange(4, dtype=np.float32)
    np.testing.assert_array_equal(
        read_torch_file(zipped(tensor_program(), **{"0": array.tobytes()}))["a"], array
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"shape": 5},
        {"offset": 1},
        {"stride": 2},
        {"size": 3},
        {"offset": -1},
        {"shape": -1},
        {"shape": 0},
        {"stride": -1},
        {"shape": 2**31 - 1, "stride": 0},  # gigabytes out of one number
        {"number": b"1"},
        {"number": b"../0"},
    ],
)
def test_tensors_that_reach_beyond_their_numbers_are_refused(wrong):
    data = zipped(tensor_program(**wrong), **{"0": np.arange(4, dtype=np.float32).tobytes()})
    with pytest.raises(ValueError, match=r"tensor|storage|not of torch\.save"):
        read_torch_file(data)


@pytest.mark.parametrize(
    "value",
    [[torch.ones(2)], torch.ones(2), {"a": {"b": torch.ones(2)}}, {"a": 3.0}, {"a": torch.ones(2).int()}],
)
def test_other_things_that_torch_saves_are_refused(value):
    with pytest.raises(ValueError, match="no dict of"):
        read_torch_file(saved(value))


def test_torchs_old_format_is_refused():
    with pytest.raises(ValueError, match=r"not of torch\.save, or damaged"):
        read_torch_file(saved({"a": torch.ones(2)}, _use_new_zipfile_serialization=False))


@settings(max_examples=40)
@given(where=st.floats(0, 1, exclude_max=True), cut=st.booleans(), byte=st.integers(0, 255))
def test_damage_anywhere_is_a_sentence_or_harmless(where, cut, byte):
    data = bytearray(write_torch_file({"a": np.ones((2, 3), np.float32)}))
    at = int(where * len(data))
    if cut:
        del data[at:]
    else:
        data[at] = byte
    try:
        arrays = read_torch_file(bytes(data))
    except ValueError:
        return
    assert all(array.dtype == np.float32 for array in arrays.values())


def test_a_file_that_unpacks_to_too_much_is_refused(monkeypatch):
    monkeypatch.setattr("pocketclip.data.foreign.torch_file.MAX_BYTES", 1000)
    with pytest.raises(ValueError, match="more than"):
        read_torch_file(saved({"a": torch.ones(1000)}))
