"""The `__reinforcement__` block of a shard: augmentation parameters and teacher embeddings, addressable by row.

Version 1 is a safetensors file inside the tar, found by the tar's index and read in place (memory-mapped), so that a
reader touches only the rows it uses. Row i of every table belongs to the shard's sample i:

    augment_params      int32 [N, A, P]   packed views (augment.pack)
    text_offsets        int64 [N + 1]     sample i's captions are rows text_offsets[i] : text_offsets[i + 1], in the
                                          order of Sample.texts
    image/NAME/values   [N * A, D]        teacher NAME's embedding of view a of sample i in row i * A + a
    text/NAME/values    [T, D]            its embedding of every caption
    .../scale           float32 [rows]    int8 only

The header holds the format's version, the augmentation spec, the codec and its measured error, and for each teacher its
name, width, logit scale and digest.
"""

# Shape suffixes: N samples, A views of each, P parameters of a view, T captions, D dimensions, B rows asked for.

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import IO

import numpy as np

from pocketclip.data.augment import AugmentSpec
from pocketclip.data.codec import CODECS, Codec, CodecError, decode, encode, measure, pool

BLOCK_NAME = "reinforcement"
FORMAT = "pocketclip-reinforcement"
VERSION = 1

_IN_MEMORY = 16 << 20  # bytes of a table that is being made, before it moves to a file
_CHUNK = 1 << 20
_TO_SAFETENSORS = {"float32": "F32", "uint16": "BF16", "int8": "I8", "int32": "I32", "int64": "I64"}
_FROM_SAFETENSORS = {"F32": "<f4", "BF16": "<u2", "I8": "<i1", "I32": "<i4", "I64": "<i8"}


@dataclass(frozen=True, kw_only=True)
class TeacherRecord:
    """Who made a table of embeddings.

    Attributes:
        name: the teacher's name in this ensemble.
        embed_dim: width of its embeddings.
        logit_scale: the inverse temperature to distil it at.
        digest: sha256 of its weights.
    """

    name: str
    embed_dim: int
    logit_scale: float
    digest: str


@dataclass(frozen=True, kw_only=True)
class ReinforcementHeader:
    """What a block says of itself.

    Attributes:
        config_digest: of the reinforcement's whole configuration.
        input_sha256: of the shard that was reinforced.
        augment: what the views were drawn from.
        codec: how embeddings are stored.
        teachers: in the order of the configuration.
        errors: by table (`image/NAME`, `text/NAME`), what the codec cost.
        dropped: samples of the input that are not in the output, key -> reason.
    """

    config_digest: str
    input_sha256: str
    augment: AugmentSpec
    codec: Codec
    teachers: tuple[TeacherRecord, ...]
    errors: Mapping[str, CodecError]
    dropped: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """One teacher's embeddings of one shard, unit-norm float32.

    Attributes:
        image_NAD: of every view.
        text_TD: of every caption.
    """

    image_NAD: np.ndarray
    text_TD: np.ndarray


def pack_reinforcement(
    *,
    config_digest: str,
    input_sha256: str,
    augment: AugmentSpec,
    codec: Codec,
    params_NAP: np.ndarray,
    text_counts: Sequence[int],
    teachers: Sequence[tuple[TeacherRecord, Embeddings]],
    dropped: Mapping[str, str],
) -> bytes:
    """The block's bytes, the same for the same values.

    Args:
        config_digest: of the reinforcement's whole configuration.
        input_sha256: of the shard that was reinforced.
        augment: what the views were drawn from.
        codec: how to store embeddings.
        params_NAP: int32 packed views.
        text_counts: captions of each sample.
        teachers: each with its embeddings.
        dropped: samples of the input that are not in the output, key -> reason.
    """
    with ReinforcementWriter(
        augment=augment, codec=codec, teachers=[record for record, _ in teachers]
    ) as writer:
        writer.add(params_NAP, text_counts, [embeddings for _, embeddings in teachers])
        block = writer.finish(config_digest=config_digest, input_sha256=input_sha256, dropped=dropped)
        return b"".join(block.chunks)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block's bytes before they are read.

    Attributes:
        num_bytes: of all of them.
        chunks: the bytes in order; to be read once, while the writer is open.
    """

    num_bytes: int
    chunks: Iterator[bytes]


class ReinforcementWriter:
    """Makes a block of groups of samples, one after the other.

    Only the group at hand is in memory: encoded rows wait in temporary files. A codec encodes a sample by itself, so
    the tables do not depend on the groups; the measured errors are means over them.

    Args:
        augment: what the views were drawn from.
        codec: how to store embeddings.
        teachers: in the order of the configuration.
        folder: for the temporary files; None takes the system's.
    """

    def __init__(
        self,
        *,
        augment: AugmentSpec,
        codec: Codec,
        teachers: Sequence[TeacherRecord],
        folder: Path | None = None,
    ) -> None:
        self._augment = augment
        self._codec = codec
        self._teachers = tuple(teachers)
        self._folder = folder
        self._files = ExitStack()
        self._tables: dict[str, _Table] = {}
        self._text_counts: list[int] = []
        self._errors: dict[str, list[tuple[CodecError, int]]] = {}

    def __enter__(self) -> ReinforcementWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()

    def add(
        self, params_NAP: np.ndarray, text_counts: Sequence[int], embeddings: Sequence[Embeddings]
    ) -> None:
        """Appends samples.

        Args:
            params_NAP: int32 packed views.
            text_counts: captions of each sample.
            embeddings: of each teacher.
        """
        self._append("augment_params", params_NAP.astype(np.int32))
        self._text_counts += text_counts
        for record, rows in zip(self._teachers, embeddings, strict=True):
            num_samples, num_views, width = rows.image_NAD.shape
            assert rows.text_TD.shape == (sum(text_counts), width)
            assert params_NAP.shape[:2] == (num_samples, num_views)
            by_kind = {"image": rows.image_NAD.reshape(-1, width), "text": rows.text_TD}
            for kind, rows_ND in by_kind.items():
                table = f"{kind}/{record.name}"
                error = measure(rows_ND, codec=self._codec)
                self._errors.setdefault(table, []).append((error, len(rows_ND)))
                for part, array in encode(rows_ND, codec=self._codec).items():
                    self._append(f"{table}/{part}", array)

    def errors(self) -> dict[str, CodecError]:
        """What the codec cost so far, by table."""
        return {table: pool(errors) for table, errors in self._errors.items()}

    def finish(self, *, config_digest: str, input_sha256: str, dropped: Mapping[str, str]) -> Block:
        """The block of all samples that were added, the same bytes for the same values."""
        self._append("text_offsets", np.concatenate([[0], np.cumsum(self._text_counts)]).astype(np.int64))
        header = {
            "format": FORMAT,
            "version": str(VERSION),
            "config_digest": config_digest,
            "input_sha256": input_sha256,
            "augment": _dump(asdict(self._augment)),
            "codec": self._codec,
            "teachers": _dump([asdict(record) for record in self._teachers]),
            "errors": _dump({table: asdict(error) for table, error in self.errors().items()}),
            "dropped": _dump(dict(dropped)),
        }
        return _serialize(self._tables, header)

    def _append(self, name: str, array: np.ndarray) -> None:
        if name not in self._tables:
            folder = str(self._folder) if self._folder else None
            spool = SpooledTemporaryFile(_IN_MEMORY, dir=folder)  # noqa: SIM115
            file = self._files.enter_context(spool)
            self._tables[name] = _Table(file=file, dtype=array.dtype, row_shape=array.shape[1:])
        self._tables[name].append(array)


@dataclass(kw_only=True)
class _Table:
    """Rows on their way into a block."""

    file: IO[bytes]
    dtype: np.dtype
    row_shape: tuple[int, ...]
    num_rows: int = 0
    num_bytes: int = 0

    def append(self, array: np.ndarray) -> None:
        assert (array.dtype, array.shape[1:]) == (self.dtype, self.row_shape)
        self.file.write(np.ascontiguousarray(array).data)
        self.num_rows += len(array)
        self.num_bytes += array.nbytes

    def chunks(self) -> Iterator[bytes]:
        self.file.seek(0)
        while chunk := self.file.read(_CHUNK):
            yield chunk


def _dump(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _serialize(tables: Mapping[str, _Table], header: Mapping[str, str]) -> Block:
    """A safetensors file with sorted header and tables: the library keeps metadata in a hash map's changing order."""
    layout: dict[str, object] = {"__metadata__": dict(sorted(header.items()))}
    offset = 0
    # Wide types first keeps every table aligned to its item size.
    order = sorted(tables, key=lambda name: (-tables[name].dtype.itemsize, name))
    for name in order:
        table = tables[name]
        layout[name] = {
            "dtype": _TO_SAFETENSORS[table.dtype.name],
            "shape": [table.num_rows, *table.row_shape],
            "data_offsets": [offset, offset + table.num_bytes],
        }
        offset += table.num_bytes
    text = json.dumps(layout, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    chunks = chain([head], chain.from_iterable(tables[name].chunks() for name in order))
    return Block(num_bytes=len(head) + offset, chunks=chunks)


class Reinforcement:
    """A block read in place.

    Args:
        block: the member's bytes, for instance a view of the memory-mapped shard.
        name: the shard's, for messages.

    Raises:
        ValueError: not such a block, cut, or of another version; the message names the shard and the remedy.
    """

    header: ReinforcementHeader

    def __init__(self, block: memoryview, *, name: str) -> None:
        layout, body = _layout(block, name=name)
        metadata = layout.pop("__metadata__", {})
        self.header = _read_header(metadata, name=name)
        self._tables = {
            table: _view(body, entry, name=f"{name}: table {table}") for table, entry in layout.items()
        }
        self.augment_params_NAP = self._tables["augment_params"]
        self.text_offsets = self._tables["text_offsets"]
        self._check(name)

    def __len__(self) -> int:
        return len(self.augment_params_NAP)

    @property
    def num_views(self) -> int:
        """Stored views of each picture."""
        return self.augment_params_NAP.shape[1]

    def image_rows(self, teacher: str, sample_B: np.ndarray, view_B: np.ndarray) -> np.ndarray:
        """Teacher embeddings float32 [B, D] of view `view_B[i]` of sample `sample_B[i]`."""
        return self._rows(f"image/{teacher}", sample_B * self.num_views + view_B)

    def text_rows(self, teacher: str, sample_B: np.ndarray, text_B: np.ndarray) -> np.ndarray:
        """Teacher embeddings float32 [B, D] of caption `text_B[i]` (in Sample.texts order) of sample `sample_B[i]`."""
        return self._rows(f"text/{teacher}", self.text_offsets[sample_B] + text_B)

    def _rows(self, table: str, row_B: np.ndarray) -> np.ndarray:
        parts = {part: self._tables[f"{table}/{part}"][row_B] for part in self._parts}
        return decode(parts, codec=self.header.codec)

    @property
    def _parts(self) -> tuple[str, ...]:
        return ("values", "scale") if self.header.codec == "int8" else ("values",)

    def _check(self, name: str) -> None:
        num_images = len(self) * self.num_views
        for teacher in self.header.teachers:
            for table, rows in (
                (f"image/{teacher.name}", num_images),
                (f"text/{teacher.name}", self.text_offsets[-1]),
            ):
                values = self._tables.get(f"{table}/values")
                if values is None or values.shape != (rows, teacher.embed_dim):
                    found = "missing" if values is None else f"of shape {values.shape}"
                    raise ValueError(
                        f"{name}: table {table} is {found}, expected {(int(rows), teacher.embed_dim)}: "
                        "the shard is damaged; delete it and run `pocketclip reinforce` again"
                    )


def _layout(block: memoryview, *, name: str) -> tuple[dict[str, dict], memoryview]:
    damaged = (
        f"{name}: the reinforcement block is damaged: delete the shard and run `pocketclip reinforce` again"
    )
    if len(block) < 8:
        raise ValueError(damaged)
    length = int.from_bytes(block[:8], "little")
    try:
        layout = json.loads(bytes(block[8 : 8 + length]))
    except ValueError:
        raise ValueError(damaged) from None
    if not isinstance(layout, dict):
        raise ValueError(damaged)
    return layout, block[8 + length :]


def _view(body: memoryview, entry: Mapping, *, name: str) -> np.ndarray:
    start, stop = entry["data_offsets"]
    if stop > len(body):
        raise ValueError(f"{name} is cut short: delete the shard and run `pocketclip reinforce` again")
    return np.frombuffer(body[start:stop], dtype=_FROM_SAFETENSORS[entry["dtype"]]).reshape(entry["shape"])


def _read_header(metadata: Mapping[str, str], *, name: str) -> ReinforcementHeader:
    if metadata.get("format") != FORMAT or metadata.get("version") != str(VERSION):
        raise ValueError(
            f"{name}: the reinforcement block is {metadata.get('format')!r} version {metadata.get('version')!r}, this "
            f"program reads {FORMAT!r} version {VERSION}: run `pocketclip reinforce` again with this release"
        )
    codec = metadata["codec"]
    if codec not in CODECS:
        raise ValueError(f"{name}: unknown codec {codec!r}, this program reads {', '.join(CODECS)}")
    return ReinforcementHeader(
        config_digest=metadata["config_digest"],
        input_sha256=metadata["input_sha256"],
        augment=_read_augment(metadata["augment"], name=name),
        codec=codec,
        teachers=tuple(TeacherRecord(**record) for record in json.loads(metadata["teachers"])),
        errors={table: CodecError(**error) for table, error in json.loads(metadata["errors"]).items()},
        dropped=json.loads(metadata["dropped"]),
    )


def _read_augment(text: str, *, name: str) -> AugmentSpec:
    try:
        return AugmentSpec.from_json(json.loads(text))
    except ValueError as error:
        raise ValueError(f"{name}: {error}: run `pocketclip reinforce` again with this release") from None
