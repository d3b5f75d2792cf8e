"""Files of torch.save that hold a dict of tensors, read and written without torch and without running a pickle.

Such a file is a zip. `data.pkl` is a program for pickle's machine that says which tensors there are; `data/N` holds the
numbers. The program is never run: pickletools takes it apart into opcodes, and the few that describe a dict of tensors
are followed here. Any other opcode, and any name but those of three constructors and four types, is an error. What
comes out can only be arrays, whatever the file says.
"""

from __future__ import annotations

import io
import math
import pickletools
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np

MAX_BYTES = 256 << 20
"""What a file's members may be together, unpacked; the arrays of a published sample have less than a megabyte."""

_MAX_PROGRAM = 1 << 20  # bytes
_BFLOAT16 = "BFloat16Storage"
_STORAGES = {_BFLOAT16: "<u2", "HalfStorage": "<f2", "FloatStorage": "<f4", "DoubleStorage": "<f8"}
_TENSOR, _ORDERED_DICT = "torch._utils _rebuild_tensor_v2", "collections OrderedDict"
_LITERALS = frozenset(
    {"BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINGET", "LONG_BINGET"}
)
_DAMAGE = (ValueError, IndexError, KeyError, TypeError, AttributeError, struct.error)
ZIP_DAMAGE = (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error, OSError)
"""What zipfile raises on a file that is cut, damaged, encrypted or packed in a way it does not know."""


def read_torch_file(data: bytes) -> dict[str, np.ndarray]:
    """The tensors of a file of torch.save, as float32 arrays.

    Args:
        data: the file's bytes: a zip with a dict of names to dense tensors of bfloat16, float16, float32 or float64.

    Raises:
        ValueError: the file is something else, damaged, or larger than `MAX_BYTES`.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            if sum(info.file_size for info in file.infolist()) > MAX_BYTES:
                raise ValueError(f"its members have more than {MAX_BYTES >> 20} MB")
            roots = [name.removesuffix("data.pkl") for name in file.namelist() if name.endswith("/data.pkl")]
            if len(roots) != 1:
                raise ValueError("it is not of torch.save (no data.pkl in it)")
            root = roots[0]
            if f"{root}byteorder" in file.namelist() and file.read(f"{root}byteorder") != b"little":
                raise ValueError("its numbers are big-endian")
            tensors = _follow(file.read(f"{root}data.pkl"))
            return {name: _array(tensor, file, root=root) for name, tensor in tensors.items()}
    except (KeyError, *ZIP_DAMAGE) as error:
        raise ValueError(f"it is not of torch.save, or damaged ({error})") from None


def write_torch_file(arrays: Mapping[str, np.ndarray]) -> bytes:
    """A file that `torch.load(..., weights_only=True)` reads as a dict of bfloat16 tensors.

    Args:
        arrays: name -> array; rounded to bfloat16, to the nearest, halves to even.

    Returns:
        The file's bytes, the same for the same values.
    """
    buffer = io.BytesIO()
    rounded = {name: to_bfloat16(array) for name, array in arrays.items()}
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        members = [("data.pkl", _program(rounded)), ("byteorder", b"little")]
        members += [(f"data/{number}", bits.tobytes()) for number, bits in enumerate(rounded.values())]
        for name, content in [*members, ("version", b"3\n")]:
            file.writestr(zipfile.ZipInfo(f"archive/{name}"), content)
    return buffer.getvalue()


def to_bfloat16(array: np.ndarray) -> np.ndarray:
    """Finite floats as the 16 bits of the nearest bfloat16, halves to even: uint16 of the same shape."""
    bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(
        "<u2"
    )


@dataclass(frozen=True, kw_only=True)
class _Storage:
    """Numbers in a member of the zip."""

    kind: str
    number: str
    num_elements: int


@dataclass(frozen=True, kw_only=True)
class _Tensor:
    """A view of a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Name:
    """Something of a module that a program may mention."""

    text: str


def _array(tensor: _Tensor, file: zipfile.ZipFile, *, root: str) -> np.ndarray:
    storage = tensor.storage
    content = file.read(f"{root}data/{storage.number}")
    numbers = np.frombuffer(content, dtype=_STORAGES[storage.kind])
    last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
    if len(numbers) != storage.num_elements or last >= len(numbers):
        raise ValueError(
            f"a tensor of shape {tensor.shape} does not fit its numbers, of which there are {len(numbers)}"
        )
    item = numbers.itemsize
    view = np.lib.stride_tricks.as_strided(
        numbers[tensor.offset :], tensor.shape, [stride * item for stride in tensor.strides], writeable=False
    )
    if storage.kind == _BFLOAT16:
        return (view.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return view.astype(np.float32)


def _follow(program: bytes) -> dict[str, _Tensor]:
    """What a pickle program describes, where that is a dict of tensors."""
    if len(program) > _MAX_PROGRAM:
        raise ValueError("its data.pkl is longer than that of any dict of tensors")
    try:
        result = _Machine().follow(program)
    except _DAMAGE as error:
        raise ValueError(f"its data.pkl is no dict of tensors ({error or type(error).__name__})") from None
    if not isinstance(result, dict):
        raise ValueError("its data.pkl is no dict of tensors")
    for name, tensor in result.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise ValueError("its data.pkl is no dict of names to tensors")
    return cast("dict[str, _Tensor]", result)


class _Machine:
    """The part of pickle's machine that describes dicts of tensors. It calls nothing that a program names."""

    def __init__(self) -> None:
        self._stack: list[object] = []
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}

    def follow(self, program: bytes) -> object:
        """What is on the stack at the end."""
        for opcode, argument, _ in pickletools.genops(program):
            if opcode.name == "STOP":
                return self._stack.pop()
            self._step(opcode.name, argument)
        raise ValueError("it does not end")

    def _step(self, opcode: str, argument: object) -> None:
        stack = self._stack
        match opcode:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self._marks.append(len(stack))
            case "EMPTY_DICT":
                stack.append({})
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode == "NEWTRUE")
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                stack.append(tuple(self._since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self._last(int(opcode[-1]))))
            case "BINPUT" | "LONG_BINPUT":
                self._memo[cast("int", argument)] = stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "GLOBAL":
                stack.append(_known(str(argument)))
            case "STACK_GLOBAL":
                stack.append(_known(" ".join(str(part) for part in self._last(2))))
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "REDUCE":
                stack.append(_built(*self._last(2)))
            case "SETITEM":
                self._set(self._last(2))
            case "SETITEMS":
                self._set(self._since_mark())
            case _ if opcode in _LITERALS:
                stack.append(self._memo[cast("int", argument)] if opcode.endswith("GET") else argument)
            case _:
                raise ValueError(f"it has the opcode {opcode}")

    def _last(self, num: int) -> list[object]:
        if len(self._stack) < num:
            raise ValueError("it takes more than there is")
        taken = self._stack[-num:]
        del self._stack[-num:]
        return taken

    def _since_mark(self) -> list[object]:
        start = self._marks.pop()
        taken = self._stack[start:]
        del self._stack[start:]
        return taken

    def _set(self, items: list[object]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict):
            raise ValueError("it sets items of something else than a dict")
        target.update(zip(items[::2], items[1::2], strict=True))


def _known(name: str) -> _Name:
    module, _, attribute = name.partition(" ")
    if name not in (_TENSOR, _ORDERED_DICT) and not (module == "torch" and attribute in _STORAGES):
        raise ValueError(f"it names {name.replace(' ', '.')}")
    return _Name(name)


def _storage(described: object) -> _Storage:
    match described:
        case ("storage", _Name(text=kind), str(number), str(), int(num_elements)) if kind.startswith(
            "torch "
        ) and re.fullmatch(r"[0-9]{1,9}", number):
            return _Storage(kind=kind.removeprefix("torch "), number=number, num_elements=num_elements)
    raise ValueError(f"it has a storage {described!r}")


def _built(constructor: object, arguments: object) -> object:
    if constructor == _Name(_ORDERED_DICT) and arguments == ():
        return {}
    if constructor == _Name(_TENSOR):
        match arguments:
            case (_Storage() as storage, int(offset), tuple(shape), tuple(strides), *_):
                return _tensor(storage, (offset, *shape, *strides), num_axes=len(shape))
    raise ValueError(f"it builds {constructor!r} of {arguments!r}")


def _tensor(storage: _Storage, numbers: tuple[object, ...], *, num_axes: int) -> _Tensor:
    """A tensor by its offset, its shape and its strides."""
    if not all(type(number) is int and number >= 0 for number in numbers) or len(numbers) != 1 + 2 * num_axes:
        raise ValueError(f"it has a tensor with {numbers}")
    offset, *sizes = cast("tuple[int, ...]", numbers)
    shape = tuple(sizes[:num_axes])
    if not 0 < 8 * math.prod(shape) <= MAX_BYTES:
        raise ValueError(f"it has a tensor of shape {shape}")
    return _Tensor(storage=storage, offset=offset, shape=shape, strides=tuple(sizes[num_axes:]))


def _program(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The pickle program, protocol 2, of a dict of contiguous bfloat16 tensors."""
    parts = [b"\x80\x02}("]
    for number, (name, array) in enumerate(arrays.items()):
        strides = [math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim)]
        storage = [_text("storage"), f"ctorch\n{_BFLOAT16}\n".encode(), _text(str(number)), _text("cpu")]
        parts += [
            _text(name),
            b"ctorch._utils\n_rebuild_tensor_v2\n",
            b"((" + b"".join(storage) + _int(array.size) + b"tQ",
            _int(0) + _ints(array.shape) + _ints(strides),
            b"\x89ccollections\nOrderedDict\n)RtR",
        ]
    return b"".join([*parts, b"u."])


def _text(text: str) -> bytes:
    encoded = text.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _int(number: int) -> bytes:
    return b"J" + struct.pack("<i", number)


def _ints(numbers: tuple[int, ...] | list[int]) -> bytes:
    return b"(" + b"".join(_int(number) for number in numbers) + b"t"
