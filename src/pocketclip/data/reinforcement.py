"""The `__reinforcement__` block of a shard: augmentation parameters and teacher embeddings, addressable by row.

Version 1 is a safetensors file inside the tar, found by the tar's index and read in place (memory-mapped), so that a
reader touches only the rows it uses. Row i of every table belongs to the shard's sample i:

    augment_params      int32 [N, A, P]   packed views (augment.pack)
    text_offsets        int64 [N + 1]     sample i's captions are rows text_offsets[i] : text_offsets[i + 1], in the
                                          order of Sample.texts
    image/NAME/values   [N * A, D]        teacher NAME's embedding of view a of sample i in row i * A + a
    text/NAME/values    [T, D]            its embedding of every caption

How values are stored, and with what beside them, is the codec's business. The header is `data/reinforcement_header.py`.
"""

# Shape suffixes: N samples, A views of each, P parameters of a view, T captions (of a shard, or chosen of each sample),
# D dimensions, B samples asked for.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

import numpy as np

from pocketclip.data import codec_q4
from pocketclip.data.augment_spec import AugmentSpec
from pocketclip.data.codec import Codec, PlainTable, RowCodec, RowTable, decode, encode, expected, finite
from pocketclip.data.codec_error import TARGET_PAIRS, CodecError, codec_error, cosines, target_error
from pocketclip.data.codec_q4 import SIDES, Side
from pocketclip.data.reinforcement_header import (
    FORMAT,
    VERSION,
    ReinforcementHeader,
    TeacherRecord,
    header_texts,
    read_header,
)
from pocketclip.data.tables import Block, Kind, Table, TableWriter, read_metadata, read_tables

BLOCK_NAME = "reinforcement"
_ROWS = 1024  # that are encoded at once


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """One teacher's embeddings of one shard, or of a part of it, unit-norm float32.

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


class ReinforcementWriter:
    """Makes a block of groups of samples, one after the other.

    Only the group at hand is in memory: rows wait in temporary files, encoded, or as they are for `q4`, which looks at
    all of them before it stores the first. The bytes do not depend on the groups.

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
        self._tables = TableWriter(folder=folder)
        self._text_counts: list[int] = []
        self._cosines: dict[str, list[np.ndarray]] = {}
        self._first: dict[str, list[np.ndarray]] = {}  # exact rows of the first pairs, by table
        self._errors: dict[str, CodecError] = {}

    def __enter__(self) -> ReinforcementWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tables.__exit__(kind, error, trace)

    def add(
        self, params_NAP: np.ndarray, text_counts: Sequence[int], embeddings: Sequence[Embeddings]
    ) -> None:
        """Appends samples.

        Args:
            params_NAP: int32 packed views.
            text_counts: captions of each sample.
            embeddings: of each teacher.

        Raises:
            ValueError: an embedding is not finite.
        """
        self._tables.append("augment_params", Table(kind="I32", array=params_NAP.astype(np.int32)))
        num_missing = max(0, TARGET_PAIRS - len(self._text_counts))
        first_text_N = np.concatenate([[0], np.cumsum(text_counts)])[:-1]
        self._text_counts += text_counts
        for record, rows in zip(self._teachers, embeddings, strict=True):
            num_samples, num_views, width = rows.image_NAD.shape
            assert rows.text_TD.shape == (sum(text_counts), width)
            assert params_NAP.shape[:2] == (num_samples, num_views)
            self._add_rows(
                f"image/{record.name}",
                rows.image_NAD.reshape(-1, width),
                first_ND=rows.image_NAD[:num_missing, 0],
            )
            self._add_rows(
                f"text/{record.name}", rows.text_TD, first_ND=rows.text_TD[first_text_N[:num_missing]]
            )

    def errors(self) -> dict[str, CodecError]:
        """What the codec cost, by table (`image/NAME`); empty before `finish`."""
        return dict(self._errors)

    def finish(self, *, config_digest: str, input_sha256: str, dropped: Mapping[str, str]) -> Block:
        """The block of all samples that were added, one or more; the same bytes for the same values."""
        offsets = np.concatenate([[0], np.cumsum(self._text_counts)]).astype(np.int64)
        self._tables.append("text_offsets", Table(kind="I64", array=offsets))
        for record in self._teachers:
            encoder = self._encode_all(record) if self._codec == "q4" else None
            self._measure(record, encoder=encoder)
        header = ReinforcementHeader(
            config_digest=config_digest,
            input_sha256=input_sha256,
            augment=self._augment,
            codec=self._codec,
            teachers=self._teachers,
            errors=self._errors,
            dropped=dropped,
        )
        return self._tables.finish(header_texts(header))

    def _add_rows(self, table: str, rows_ND: np.ndarray, *, first_ND: np.ndarray) -> None:
        self._first.setdefault(table, []).append(first_ND.copy())
        if self._codec == "q4":
            self._tables.append(_exact(table), Table(kind="F32", array=finite(rows_ND)))
            return
        parts = encode(rows_ND, codec=self._codec)
        for part, rows in parts.items():
            self._tables.append(f"{table}/{part}", rows)
        self._note(table, rows_ND, _through(rows_ND, codec=self._codec))

    def _encode_all(self, record: TeacherRecord) -> codec_q4.Encoder:
        names = {side: f"{side}/{record.name}" for side in SIDES}
        encoder = codec_q4.Encoder(
            {side: partial(self._tables.rows, _exact(names[side]), num=_ROWS) for side in SIDES}
        )
        for part, table in encoder.parts().items():
            self._tables.put(_name_of(part, record.name), table)
        for side, name in names.items():
            for rows_BD in self._tables.rows(_exact(name), num=_ROWS):
                words_BW = encoder.encode(side, rows_BD)
                self._tables.append(f"{name}/values", Table(kind="U16", array=words_BW))
                self._note(name, rows_BD, encoder.decode(side, words_BW))
            self._tables.drop(_exact(name))
        return encoder

    def _note(self, table: str, exact_ND: np.ndarray, stored_ND: np.ndarray) -> None:
        self._cosines.setdefault(table, []).append(cosines(exact_ND, stored_ND))

    def _measure(self, record: TeacherRecord, *, encoder: codec_q4.Encoder | None) -> None:
        exact = {side: np.concatenate(self._first[f"{side}/{record.name}"]) for side in SIDES}
        stored = {}
        for side in SIDES:
            if encoder is not None:
                stored[side] = encoder.decode(side, encoder.encode(side, exact[side]))
            else:
                assert self._codec != "q4"
                stored[side] = _through(exact[side], codec=self._codec)
        target = target_error(
            image_BD=exact["image"],
            text_BD=exact["text"],
            stored_image_BD=stored["image"],
            stored_text_BD=stored["text"],
            logit_scale=record.logit_scale,
        )
        for side in SIDES:
            table = f"{side}/{record.name}"
            self._errors[table] = codec_error(np.concatenate(self._cosines[table]), target=target)


def _exact(table: str) -> str:
    return f"exact/{table}"


def _through(rows_ND: np.ndarray, *, codec: RowCodec) -> np.ndarray:
    """The rows as a reader gets them."""
    parts = PlainTable(encode(rows_ND, codec=codec), codec=codec)
    return decode(parts, np.arange(len(rows_ND)), embed_dim=rows_ND.shape[1])


def _name_of(part: str, teacher: str) -> str:
    """The table that holds a part of the codec: `image/scale` of teacher NAME is `image/NAME/scale`."""
    side, _, rest = part.partition("/")
    return f"{side}/{teacher}/{rest}" if rest else side


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What one teacher said of a batch, float32.

    Attributes:
        image_BD: of one view of each sample.
        text_TBD: of T captions of each sample.
    """

    image_BD: np.ndarray
    text_TBD: np.ndarray


class Reinforcement:
    """A block read in place.

    Args:
        block: the member's bytes, for instance a view of the memory-mapped shard.
        name: the shard's, for messages.
        rows: int64 [N], of a part of a shard: the numbers under which its samples are stored. None for all, in order.

    Raises:
        ValueError: not such a block, cut, damaged, or of another version; the message names the shard and the remedy.
    """

    header: ReinforcementHeader

    def __init__(self, block: memoryview, *, name: str, rows: np.ndarray | None = None) -> None:
        self._name = name
        self._part_N = rows
        try:
            texts = read_metadata(block)
            found = (texts.get("format"), texts.get("version"))
            if found == (FORMAT, str(VERSION)):
                self._read(block, texts)
        except ValueError as error:
            raise ValueError(
                f"{name}: the reinforcement block is damaged ({error}): delete the shard and run "
                "`pocketclip reinforce` again"
            ) from None
        if found != (FORMAT, str(VERSION)):
            raise ValueError(
                f"{name}: the reinforcement block is {found[0]!r} version {found[1]!r}, this program reads {FORMAT!r} "
                f"version {VERSION}: run `pocketclip reinforce` again with this release"
            )

    def __len__(self) -> int:
        return len(self.augment_params_NAP) if self._part_N is None else len(self._part_N)

    def params(self, sample: int) -> np.ndarray:
        """Packed views int32 [A, P] of a sample."""
        return self.augment_params_NAP[sample if self._part_N is None else self._part_N[sample]]

    def text_counts(self) -> np.ndarray:
        """Captions of each sample, int64 [N]."""
        return np.diff(self.text_offsets)[slice(None) if self._part_N is None else self._part_N]

    @property
    def num_views(self) -> int:
        """Stored views of each picture."""
        return self.augment_params_NAP.shape[1]

    def image_rows(self, teacher: str, sample_B: np.ndarray, view_B: np.ndarray) -> np.ndarray:
        """Teacher embeddings float32 [B, D] of view `view_B[i]` of sample `sample_B[i]`.

        Raises:
            IndexError: a sample or view is not there.
        """
        out_BD = np.empty((len(sample_B), self._embed_dim(teacher)), np.float32)
        self._image_into(out_BD, teacher, sample_B, view_B, place_B=np.arange(len(sample_B)))
        return out_BD

    def text_rows(self, teacher: str, sample_B: np.ndarray, text_B: np.ndarray) -> np.ndarray:
        """Teacher embeddings float32 [B, D] of caption `text_B[i]` (in Sample.texts order) of sample `sample_B[i]`.

        Raises:
            IndexError: a sample or caption is not there.
        """
        out_BD = np.empty((len(sample_B), self._embed_dim(teacher)), np.float32)
        self._text_into(out_BD, teacher, sample_B, text_B, place_B=np.arange(len(sample_B)))
        return out_BD

    def _embed_dim(self, teacher: str) -> int:
        for record in self.header.teachers:
            if record.name == teacher:
                return record.embed_dim
        names = ", ".join(record.name for record in self.header.teachers)
        raise ValueError(f"{self._name} has no embeddings of teacher {teacher!r}, it has those of {names}")

    def _image_into(
        self,
        out_BD: np.ndarray,
        teacher: str,
        sample_B: np.ndarray,
        view_B: np.ndarray,
        *,
        place_B: np.ndarray,
    ) -> None:
        stored_B = self._stored(sample_B)
        self._check_within(view_B, self.num_views, what="view")
        self._decode_into(f"image/{teacher}", stored_B * self.num_views + view_B, out_BD, place_B)

    def _text_into(
        self,
        out_BD: np.ndarray,
        teacher: str,
        sample_B: np.ndarray,
        text_B: np.ndarray,
        *,
        place_B: np.ndarray,
    ) -> None:
        stored_B = self._stored(sample_B)
        start_B = self.text_offsets[stored_B]
        self._check_within(text_B, self.text_offsets[stored_B + 1] - start_B, what="caption")
        self._decode_into(f"text/{teacher}", start_B + text_B, out_BD, place_B)

    def _stored(self, sample_B: np.ndarray) -> np.ndarray:
        self._check_within(sample_B, len(self), what="sample")
        return sample_B if self._part_N is None else self._part_N[sample_B]

    def _decode_into(self, table: str, row_B: np.ndarray, out_BD: np.ndarray, place_B: np.ndarray) -> None:
        order_B = np.argsort(row_B)
        self._rows[table].decode_into(out_BD, place_B[order_B], row_B[order_B])

    def _check_within(self, index_B: np.ndarray, end: int | np.ndarray, *, what: str) -> None:
        wrong_B = (index_B < 0) | (index_B >= end)
        if wrong_B.any():
            raise IndexError(f"{self._name} has no {what} {index_B[wrong_B][0]} where one was asked for")

    def _read(self, block: memoryview, texts: Mapping[str, str]) -> None:
        self.header = read_header(texts)
        tables = read_tables(block)
        num_params = self.header.augment.num_params
        self.augment_params_NAP = _take(tables, "augment_params", "I32", (None, None, num_params)).array
        num_samples, num_views, _ = self.augment_params_NAP.shape
        if not num_samples or not num_views:
            raise ValueError("it holds no sample or no view")
        self.text_offsets = _take(tables, "text_offsets", "I64", (num_samples + 1,)).array
        if self.text_offsets[0] != 0 or (np.diff(self.text_offsets) < 1).any():
            raise ValueError("table text_offsets does not give every sample its captions")
        num_rows: dict[Side, int] = {"image": num_samples * num_views, "text": int(self.text_offsets[-1])}
        self._rows = (
            _quantised_tables(tables, self.header.teachers, num_rows=num_rows)
            if self.header.codec == "q4"
            else _plain_tables(tables, self.header.teachers, num_rows=num_rows, codec=self.header.codec)
        )
        if tables:
            raise ValueError(f"table {min(tables)} is unknown")


def read_rows(
    blocks: Sequence[Reinforcement],
    *,
    teacher: str,
    shard_B: np.ndarray,
    sample_B: np.ndarray,
    view_B: np.ndarray,
    text_TB: np.ndarray,
) -> Rows:
    """What a teacher said of a batch from several shards.

    Rows are gathered and decoded many at a time, those of a shard in the order in which they are stored.

    Args:
        blocks: of the shards.
        teacher: by name.
        shard_B: where in `blocks` each sample is.
        sample_B: its number in its shard.
        view_B: one view of each.
        text_TB: T captions of each, in Sample.texts order.

    Raises:
        IndexError: a sample, view or caption is not there.
        ValueError: a shard has no embeddings of this teacher.
    """
    num_texts, num_samples = text_TB.shape
    width = blocks[int(shard_B[0])]._embed_dim(teacher) if num_samples else 0
    rows = Rows(
        image_BD=np.empty((num_samples, width), np.float32),
        text_TBD=np.empty((num_texts, num_samples, width), np.float32),
    )
    flat_text = rows.text_TBD.reshape(num_texts * num_samples, width)
    order_B = np.argsort(shard_B, kind="stable")
    starts = np.flatnonzero(np.diff(shard_B[order_B])) + 1
    for place_B in np.split(order_B, starts) if num_samples else ():
        block, own_B = blocks[int(shard_B[place_B[0]])], sample_B[place_B]
        block._image_into(rows.image_BD, teacher, own_B, view_B[place_B], place_B=place_B)
        block._text_into(
            flat_text,
            teacher,
            np.tile(own_B, num_texts),
            text_TB[:, place_B].ravel(),
            place_B=(place_B + num_samples * np.arange(num_texts)[:, None]).ravel(),
        )
    return rows


def _take(tables: dict[str, Table], name: str, kind: Kind, shape: tuple[int | None, ...]) -> Table:
    """A table, which leaves `tables`. ValueError when it is missing or of another type or shape."""
    table = tables.pop(name, None)
    if table is None:
        raise ValueError(f"table {name} is missing")
    found = table.array.shape
    fits = len(found) == len(shape) and all(
        have == want for have, want in zip(found, shape, strict=True) if want is not None
    )
    if table.kind != kind or not fits:
        wanted = "x".join("any" if want is None else str(want) for want in shape)
        raise ValueError(f"table {name} is {table.kind} of shape {found}, expected {kind} of {wanted}")
    return table


def _plain_tables(
    tables: dict[str, Table],
    teachers: Sequence[TeacherRecord],
    *,
    num_rows: Mapping[Side, int],
    codec: RowCodec,
) -> dict[str, RowTable]:
    rows: dict[str, RowTable] = {}
    for record in teachers:
        for side in SIDES:
            wanted = expected(codec=codec, num_rows=num_rows[side], embed_dim=record.embed_dim)
            name = f"{side}/{record.name}"
            parts = {
                part: _take(tables, f"{name}/{part}", kind, shape) for part, (kind, shape) in wanted.items()
            }
            rows[name] = PlainTable(parts, codec=codec)
    return rows


def _quantised_tables(
    tables: dict[str, Table], teachers: Sequence[TeacherRecord], *, num_rows: Mapping[Side, int]
) -> dict[str, RowTable]:
    rows: dict[str, RowTable] = {}
    levels = _take(tables, "levels", "F32", codec_q4.all_levels().shape)
    for record in teachers:
        wanted = codec_q4.expected(num_rows=num_rows, embed_dim=record.embed_dim)
        parts = {
            part: _take(tables, _name_of(part, record.name), kind, shape)
            for part, (kind, shape) in wanted.items()
        }
        name = f"basis/{record.name}"
        try:
            basis = codec_q4.Basis({"levels": levels, **parts})
            for side in SIDES:
                name, prefix = f"{side}/{record.name}", f"{side}/"
                own = {
                    part.removeprefix(prefix): one for part, one in parts.items() if part.startswith(prefix)
                }
                rows[name] = codec_q4.QuantisedTable(own, basis=basis)
        except ValueError as error:
            raise ValueError(f"table {name}: {error}") from None
    return rows
