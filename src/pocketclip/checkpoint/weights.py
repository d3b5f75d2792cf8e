"""Named tensors from a file that somebody else wrote: nothing in it is executed, and what is no such file is told.

Read are safetensors files and what `torch.save` wrote, zipped or in its older form, always with `weights_only`.
"""

from __future__ import annotations

import codecs
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import safetensors
import torch
from torch import Tensor

_COPY = "copy or download it again"
_WEIGHTS_ONLY = "save the weights alone: torch.save(model.state_dict(), FILE)"
# Entries of a training checkpoint that hold a model, and those that hold its moving average.
_MODELS = ("state_dict", "model", "model_state_dict", "module")
_AVERAGES = ("state_dict_ema", "model_ema", "ema", "ema_state_dict", "model_ema_state_dict")
# Parts of names that wrappers of a model put in: DistributedDataParallel, torch.compile, FSDP, checkpointing.
_WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_NUM_AVERAGED = "n_averaged"  # counter of torch.optim.swa_utils.AveragedModel
# What torch's restricted unpickler raises on files that are damaged or something else.
_UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ImportError,
    struct.error,
    MemoryError,
)

FileKind = Literal["safetensors", "torch"]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Tensors by name, wrappers taken off.

    Attributes:
        tensors: of any shape and type, on the CPU; some may be views of the file.
        notes: what was taken off or chosen, a sentence each.
    """

    tensors: Mapping[str, Tensor]
    notes: tuple[str, ...]


def file_kind(path: Path) -> FileKind:
    """What a file of weights is, by its first bytes.

    Raises:
        ValueError: it is something else, or a zip file that is cut; the sentence says what, and what to do.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(512)
    text = head.lstrip().lower()
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        return "safetensors"
    if size == 0:
        raise ValueError(f"{path} is empty: {_COPY}")
    if text.startswith((b"<!doctype html", b"<html", b"<?xml")):
        raise ValueError(
            f"{path} is a web page, not weights (a download that ended on an error or a login): download it again"
        )
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is a git-lfs pointer, not the weights: fetch them with `git lfs pull`")
    if head.startswith(b"PK\x03\x04"):
        if not zipfile.is_zipfile(path):
            raise ValueError(f"{path} is cut (a torch file without its end): {_COPY}")
        return "torch"
    if head.startswith(b"\x80"):
        return "torch"
    if _is_text(head):
        raise ValueError(f"{path} is a text file, not weights: give a .safetensors, .pt, .pth or .bin file")
    raise ValueError(f"{path} is neither a safetensors nor a torch file: {_COPY}, or give another")


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # a character may be cut at the end
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character.isspace() for character in text)


def safetensors_header(path: Path) -> dict[str, str]:
    """The metadata in the header of a safetensors file.

    Raises:
        ValueError: the file is cut or damaged.
    """
    with _whole_safetensors(path), safetensors.safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU.

    Raises:
        ValueError: the file is cut or damaged.
    """
    with _whole_safetensors(path), safetensors.safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def read_weights(path: Path, *, moving_average: bool = True) -> Weights:
    """The tensors of a safetensors or torch file, by their bare names.

    Taken off are the entries of a training checkpoint around the model (`state_dict`, `model`), what wrappers put into
    names (`module.`, `_orig_mod.`, `_fsdp_wrapped_module.`), and a first part that all names share.

    Args:
        path: of the file.
        moving_average: of a training checkpoint that holds both, the moving average rather than the last weights.

    Raises:
        ValueError: no weights, cut, damaged, or objects besides tensors; the sentence says which.
    """
    if file_kind(path) == "safetensors":
        content: object = read_safetensors(path)
    else:
        content = _read_torch(path)
    notes: list[str] = []
    state = _model_of(content, path=path, moving_average=moving_average, notes=notes)
    return Weights(tensors=_bare_names(state, path=path, notes=notes), notes=tuple(notes))


@contextmanager
def _whole_safetensors(path: Path) -> Generator[None, None, None]:
    try:
        yield
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}): {_COPY}") from None


def _read_torch(path: Path) -> object:
    is_zip = zipfile.is_zipfile(path)
    if is_zip:
        _check_zip(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old storages
            if is_zip and path.suffix != ".safetensors":  # torch goes by that suffix, whatever is in the file
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            with path.open("rb") as file:
                return torch.load(file, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise ValueError(_why_unreadable(path, error, is_zip=is_zip)) from None


def _check_zip(path: Path) -> None:
    """Torch itself does not look at the checksums; 0 stands for none."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = {member.filename.partition("/")[2] for member in members}
            if "constants.pkl" in names:
                raise ValueError(f"{path} is a TorchScript program, not weights: {_WEIGHTS_ONLY}")
            if "data.pkl" not in names:
                raise ValueError(
                    f"{path} is a zip file without weights of torch: give the file that is in it"
                )
            for member in members:
                if member.CRC:
                    with archive.open(member) as file:
                        while file.read(1 << 24):
                            pass
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, RuntimeError, UnicodeError) as error:
        raise ValueError(f"{path} is damaged ({error}): {_COPY}") from None


def _why_unreadable(path: Path, error: BaseException, *, is_zip: bool) -> str:
    """The sentence for a file that torch would not read with weights alone."""
    foreign: list[str] = []
    if is_zip and isinstance(error, pickle.UnpicklingError):
        try:
            foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        except _UNREADABLE:
            foreign = []
    if foreign:
        return (
            f"{path} holds Python objects besides tensors ({', '.join(sorted(foreign)[:5])}), and such a file can run "
            f"code when it is read, so nothing of it was: {_WEIGHTS_ONLY}"
        )
    named = re.findall(r"GLOBAL:? ([\w.]+)", str(error))[:1]
    if named:  # the older form, which may end in the middle of a name
        return (
            f"{path} holds Python objects besides tensors ({named[0]}), and such a file can run code when it is read, "
            f"so nothing of it was ({_WEIGHTS_ONLY}), or it is cut: {_COPY}"
        )
    if isinstance(error, pickle.UnpicklingError):
        what = (
            "cannot be read without running what is in it" if is_zip else "is a pickle that is no torch file"
        )
        return f"{path} {what}, or is cut: {_COPY}, or {_WEIGHTS_ONLY}"
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{path} is cut or damaged ({reason}): {_COPY}"


def _model_of(content: object, *, path: Path, moving_average: bool, notes: list[str]) -> Mapping[str, Tensor]:
    """The state dict in what a file holds."""
    while isinstance(content, Mapping):
        inside = [name for name in _MODELS if isinstance(content.get(name), Mapping)]
        averages = [name for name in _AVERAGES if isinstance(content.get(name), Mapping)]
        chosen = averages if averages and (moving_average or not inside) else inside
        if not chosen:
            break
        if averages and inside:
            which = "the moving average" if chosen is averages else "the last weights, not the moving average"
            notes.append(f"of a training checkpoint its entry {chosen[0]!r} was taken, {which}")
        else:
            notes.append(f"of a training checkpoint its entry {chosen[0]!r} was taken")
        content = content[chosen[0]]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path} holds no weights by name but {_described(content)}: {_WEIGHTS_ONLY}")
    others = [
        f"{name} ({type(value).__name__})" for name, value in content.items() if not isinstance(value, Tensor)
    ]
    if others:
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        raise ValueError(
            f"{path} holds no state dict: {', '.join(others[:5])}{more} are no tensors: {_WEIGHTS_ONLY}"
        )
    return {str(name): value for name, value in content.items()}


def _described(content: object) -> str:
    return "nothing" if isinstance(content, Mapping) else f"a {type(content).__name__}"


def _bare_names(state: Mapping[str, Tensor], *, path: Path, notes: list[str]) -> dict[str, Tensor]:
    names = {name: name.split(".") for name in state if name != _NUM_AVERAGED}
    wrapped = sorted({part for parts in names.values() for part in parts} & _WRAPPERS)
    if wrapped:
        notes.append(f"taken off the names: {', '.join(f'{part}.' for part in wrapped)}")
        names = {name: [part for part in parts if part not in _WRAPPERS] for name, parts in names.items()}
    while len({parts[0] for parts in names.values() if parts}) == 1 and all(
        len(parts) > 1 for parts in names.values()
    ):
        notes.append(f"taken off the names: {next(iter(names.values()))[0]}.")
        names = {name: parts[1:] for name, parts in names.items()}
    bare: dict[str, Tensor] = {}
    for name, parts in names.items():
        short = ".".join(parts)
        if short in bare:
            raise ValueError(f"{path} holds {short} twice, once as {name}: {_WEIGHTS_ONLY}")
        bare[short] = state[name]
    return bare
