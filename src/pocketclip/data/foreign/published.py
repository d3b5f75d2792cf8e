"""Reinforced samples as DataCompDR and DFNDR publish them: a group of files in a tar, with pictures or without.

    UID.url.txt, UID.txt, UID.jpg     address, ground-truth caption, picture; each may be missing
    UID.syn.json                      {"syn_text...": [synthetic captions]}, one or more such keys
    UID.paug.json                     {"param_aug": [views]}, the list also as a text
    UID.npz, UID.pth.gz               the teachers' embeddings side by side, in float32 or bfloat16; npz wins
    UID.json                          the rest

Arrays are `image_emb` [A, W], `text_emb` and, in the second generation, one `KEY_emb` for each key of synthetic
captions; a tag may follow each name. Row i of the synthetic captions of KEY is row n + i of `text_emb`, n being the
number of ground-truth captions, where that has more than n rows, else row i of `KEY_emb`.
"""

# Shape suffixes: A views of a sample, T captions of it, W columns of all teachers, N rows.

from __future__ import annotations

import gzip
import io
import json
import math
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pocketclip.data.foreign.fields import CAPTION_FIELDS, find_field, make_key, parse_record, parse_text
from pocketclip.data.foreign.published_teachers import Generation
from pocketclip.data.foreign.tars import Group, Member, picture_of
from pocketclip.data.foreign.torch_file import MAX_BYTES, ZIP_DAMAGE, read_torch_file
from pocketclip.data.index import Dropped
from pocketclip.data.sample import JsonValue

SYNTHETIC = r"^syn_text.*$"
"""The keys of synthetic captions that are taken where nobody says: all of the published ones."""

_NOT_META = ("uid", "url", "sha256")


@dataclass(frozen=True, kw_only=True)
class PublishedSample:
    """What a published shard says of one picture.

    Attributes:
        source: names it to a person, "shard.tar: uid".
        uid: as published.
        key: of the sample it becomes.
        url: the picture's address.
        sha256: of the picture as it was downloaded.
        image: the picture, where the shard has it.
        captions: ground truth; empty where the shard has none.
        synthetic: key of synthetic captions -> captions.
        views: parameters of each view, as published.
        image_AW: float32 rows of the views.
        text_TW: float32 rows of the ground-truth captions, at least one, then of the synthetic ones by sorted key.
        generation: where the rows of synthetic captions were; None where there are none to tell by.
        meta: the other fields of its json.
    """

    source: str
    uid: str
    key: str
    url: str | None
    sha256: str | None
    image: bytes | None = field(repr=False)
    captions: tuple[str, ...]
    synthetic: Mapping[str, tuple[str, ...]]
    views: tuple[JsonValue, ...] = field(repr=False)
    image_AW: np.ndarray = field(repr=False)
    text_TW: np.ndarray = field(repr=False)
    generation: Generation | None
    meta: Mapping[str, JsonValue]

    @property
    def num_ground_truth(self) -> int:
        """Rows of `text_TW` that are ground-truth captions'."""
        return len(self.text_TW) - sum(map(len, self.synthetic.values()))


def read_published(
    group: Group, *, synthetic: str = SYNTHETIC, tag: str | None = None
) -> PublishedSample | Dropped:
    """A published sample out of its files.

    Args:
        group: the files.
        synthetic: regular expression over the keys of synthetic captions to take.
        tag: what follows the names of arrays; None for any, where that is unambiguous.

    Returns:
        The sample, or why there is none.
    """
    try:
        return _sample(group, synthetic=re.compile(synthetic), tag=tag)
    except ValueError as error:
        return Dropped(source=group.source, reason=str(error))


def read_details(group: Group) -> tuple[str, str | None, str | None]:
    """Uid, address and SHA-256 of a published sample's picture, of its small files alone.

    Raises:
        ValueError: its json or url.txt is damaged.
    """
    record = _record(group, "json") or {}
    url = _text(group, "url.txt") or record.get("url")
    uid, sha256 = record.get("uid"), record.get("sha256")
    return (
        uid if isinstance(uid, str) and uid else group.key,
        url.strip() if isinstance(url, str) and url.strip() else None,
        sha256.lower() if isinstance(sha256, str) and sha256 else None,
    )


def _sample(group: Group, *, synthetic: re.Pattern[str], tag: str | None) -> PublishedSample:
    uid, url, sha256 = read_details(group)
    record = _record(group, "json") or {}
    caption_field = find_field(record, CAPTION_FIELDS)
    caption = _text(group, "txt")
    captions = (
        (caption.strip(),) if caption and caption.strip() else _all_texts(record.get(caption_field or ""))
    )
    arrays, name = _arrays(group)
    picture = picture_of(group.members)
    written = _captions(_record(group, "syn.json"), pattern=synthetic)
    image_AW = _rows(arrays, "image_emb", tag=tag, name=name)
    text_TW, kept, generation = _text_rows(
        arrays, num_ground_truth=len(captions) or None, written=written, tag=tag, name=name
    )
    views = _views(_record(group, "paug.json"))
    if len(views) != len(image_AW):
        raise ValueError(f"paug.json has {len(views)} views and {name} embeddings of {len(image_AW)}")
    if image_AW.shape[1] != text_TW.shape[1]:
        raise ValueError(f"{name} has {image_AW.shape[1]} columns for views, {text_TW.shape[1]} for captions")
    return PublishedSample(
        source=group.source,
        uid=uid,
        key=make_key(uid),
        url=url,
        sha256=sha256,
        image=picture.data if picture is not None else None,
        captions=captions,
        synthetic=kept,
        views=views,
        image_AW=image_AW,
        text_TW=text_TW,
        generation=generation,
        meta={name: value for name, value in record.items() if name not in (caption_field, *_NOT_META)},
    )


def _member(group: Group, extension: str) -> Member | None:
    return next((member for member in group.members if member.extension == extension), None)


def _record(group: Group, extension: str) -> dict[str, JsonValue] | None:
    member = _member(group, extension)
    if member is None:
        return None
    try:
        return parse_record(member.data)
    except ValueError as error:
        raise ValueError(f"{extension}: {error}") from None


def _text(group: Group, extension: str) -> str | None:
    member = _member(group, extension)
    try:
        return parse_text(member.data) if member is not None else None
    except ValueError as error:
        raise ValueError(f"{extension}: {error}") from None


def _all_texts(value: JsonValue) -> tuple[str, ...]:
    """The texts in a field, repetitions too: each has a row of its own."""
    texts = value if isinstance(value, list) else [value]
    return tuple(text.strip() for text in texts if isinstance(text, str) and text.strip())


def _captions(
    record: Mapping[str, JsonValue] | None, *, pattern: re.Pattern[str]
) -> dict[str, tuple[str, ...]]:
    """Synthetic captions by key, keys sorted."""
    written = {}
    for key in sorted(record or {}):
        texts = (record or {})[key]
        if not pattern.search(key):
            continue
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"syn.json: {key} is no list of texts")
        written[key] = tuple(text for text in texts if isinstance(text, str))
    return written


def _views(record: Mapping[str, JsonValue] | None) -> tuple[JsonValue, ...]:
    if record is None:
        raise ValueError("no augmentation parameters (no paug.json)")
    views = record.get("param_aug")
    if isinstance(views, str):
        try:
            views = json.loads(views)
        except (ValueError, RecursionError):
            raise ValueError("paug.json: param_aug is a text that is not JSON") from None
    if not isinstance(views, list) or not views:
        raise ValueError("paug.json: param_aug is no list of views")
    return tuple(views)


def _arrays(group: Group) -> tuple[dict[str, np.ndarray], str]:
    """The sample's arrays in float32, and the extension of the file that they were in."""
    for extension, read in (("npz", _read_npz), ("pth.gz", _read_pth_gz)):
        member = _member(group, extension)
        if member is not None:
            try:
                return read(member.data), extension
            except ValueError as error:
                raise ValueError(f"{extension}: {error}") from None
    raise ValueError("no embeddings (no npz or pth.gz)")


def _read_npz(data: bytes) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            if sum(info.file_size for info in file.infolist()) > MAX_BYTES:
                raise ValueError(f"its arrays have more than {MAX_BYTES >> 20} MB")
            return {
                name.removesuffix(".npy"): _read_npy(file.read(name), name=name) for name in file.namelist()
            }
    except ZIP_DAMAGE as error:
        raise ValueError(f"it is damaged ({error})") from None


def _read_npy(data: bytes, *, name: str) -> np.ndarray:
    """An array in float32. Its header is believed only where it fits the bytes."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise ValueError(f"{name} is of numpy's format {version}, not 1 or 2")
    shape, is_fortran, dtype = read_header(file)
    if dtype.kind != "f":
        raise ValueError(f"{name} is of type {dtype}, not of floating-point numbers")
    content = data[file.tell() :]
    if math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"{name} has {len(content)} bytes for a shape of {list(shape)}")
    numbers = np.frombuffer(content, dtype).reshape(shape, order="F" if is_fortran else "C")
    return np.ascontiguousarray(numbers, dtype=np.float32)


def _read_pth_gz(data: bytes) -> dict[str, np.ndarray]:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"it is damaged ({error})") from None
    if len(content) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES >> 20} MB")
    return read_torch_file(content)


def _text_rows(
    arrays: Mapping[str, np.ndarray],
    *,
    num_ground_truth: int | None,
    written: Mapping[str, tuple[str, ...]],
    tag: str | None,
    name: str,
) -> tuple[np.ndarray, dict[str, tuple[str, ...]], Generation | None]:
    """Rows of all captions, the synthetic captions that have them, and where those were.

    A shard without ground-truth captions has the row of one in the first generation, and of as many as there are rows
    in the second. Empty synthetic captions, which captioners do write, are left out with their rows.
    """
    text_NW = _rows(arrays, "text_emb", tag=tag, name=name)
    own = {
        key: array
        for key in written
        if (array := _find(arrays, f"{key}_emb", tag=tag, name=name)) is not None
    }
    num = num_ground_truth or (len(text_NW) if own or not written else 1)
    if len(text_NW) < num:
        raise ValueError(f"{name}: text_emb has {len(text_NW)} rows for {num} ground-truth captions")
    in_text = len(text_NW) > num
    if in_text and len(written) > 1:
        raise ValueError(
            f"{name}: text_emb has rows of synthetic captions, but of which of {', '.join(written)} it does not say: "
            f"choose one by its name"
        )
    parts, kept = [text_NW[:num]], {}
    for key, texts in written.items():
        rows_NW = text_NW[num:] if in_text else own.get(key)
        if rows_NW is None or len(rows_NW) < len(texts):
            has = "no rows" if rows_NW is None else f"{len(rows_NW)} rows"
            raise ValueError(f"{name} has {has} for the {len(texts)} synthetic captions {key}")
        places = [place for place, text in enumerate(texts) if text.strip()]
        if places:
            kept[key] = tuple(texts[place].strip() for place in places)
            parts.append(rows_NW[places])
    if any(part.shape[1] != text_NW.shape[1] for part in parts):
        raise ValueError(f"{name}: rows of captions have different numbers of columns")
    generation: Generation | None = None
    if kept:
        generation = "v1" if in_text else "v2"
    return np.concatenate(parts), kept, generation


def _rows(arrays: Mapping[str, np.ndarray], stem: str, *, tag: str | None, name: str) -> np.ndarray:
    rows_NW = _find(arrays, stem, tag=tag, name=name)
    if rows_NW is None:
        raise ValueError(f"{name} has no {stem}{tag or ''} (it has {', '.join(arrays) or 'nothing'})")
    return rows_NW


def _find(arrays: Mapping[str, np.ndarray], stem: str, *, tag: str | None, name: str) -> np.ndarray | None:
    """The array of a name, tag or not."""
    found = _named(arrays, stem, tag=tag)
    if not found:
        return None
    if len(found) > 1:
        raise ValueError(f"{name} has {', '.join(found)}: say by its tag which of them to take")
    array = arrays[found[0]]
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name}: {found[0]} has the shape {list(array.shape)}, not rows of columns")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: {found[0]} has values that are not finite")
    return array


def _named(arrays: Mapping[str, np.ndarray], stem: str, *, tag: str | None) -> Sequence[str]:
    if tag is not None:
        return [name for name in arrays if name == f"{stem}{tag}"]
    return [stem] if stem in arrays else [name for name in arrays if name.startswith(stem)]
