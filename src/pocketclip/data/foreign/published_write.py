"""Our samples as published ones: the files of a group, in the layouts that published tools read."""

# Shape suffixes: A views of a sample, T captions of it, W columns of all teachers.

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import IO, Literal

import numpy as np

from pocketclip.data.foreign.published_picture import as_published
from pocketclip.data.foreign.torch_file import write_torch_file
from pocketclip.data.picture import decode
from pocketclip.data.sample import JsonValue, Sample

PublishedFormat = Literal["v1-npz", "v1-pth.gz", "v2-npz", "v2-pth.gz"]
"""Where the rows of synthetic captions are, and how arrays are stored: see `data/foreign/published.py`."""

_KEY = "syn_text"


@dataclass(frozen=True, kw_only=True)
class PublishedFiles:
    """The files of one sample.

    Attributes:
        key: what their names begin with.
        files: extension and bytes of each, in the order of the tar.
    """

    key: str
    files: Sequence[tuple[str, bytes]]


def published_files(
    sample: Sample,
    *,
    views: Sequence[JsonValue],
    image_AW: np.ndarray,
    text_TW: np.ndarray,
    layout: PublishedFormat,
    with_image: bool,
) -> PublishedFiles:
    """A sample in a published layout.

    The layout has room for one ground-truth caption, the main one. Captioners whose names do not begin with `syn_text`
    get that in front.

    Args:
        sample: ours.
        views: parameters of each view, as published.
        image_AW: float32 rows of the views, all teachers side by side.
        text_TW: float32 rows of the captions, in the order of `Sample.texts`.
        layout: which.
        with_image: put the picture in, too.

    Raises:
        ValueError: v1 has no room for the captions of several captioners.
    """
    generation, _, storage = layout.partition("-")
    names = sorted(sample.synthetic)
    keys = {name: name if name.startswith(_KEY) else f"{_KEY}_{name}" for name in names}
    if generation == "v1":
        if len(names) > 1:
            raise ValueError(
                f"sample {sample.key} has captions of {', '.join(names)}, and v1 has room for one captioner: choose "
                f"one, or a v2 layout"
            )
        keys = dict.fromkeys(names, _KEY)
    place = len(sample.captions)
    rows = {}
    for name in names:
        rows[keys[name]] = text_TW[place : place + len(sample.synthetic[name])]
        place += len(sample.synthetic[name])
    arrays = {"image_emb": image_AW, "text_emb": text_TW[:1]}
    if generation == "v1":
        arrays["text_emb"] = np.concatenate([text_TW[:1], *rows.values()])
    else:
        arrays |= {f"{key}_emb": own for key, own in rows.items()}
    extension, image, is_new = _picture(sample) if with_image else ("", b"", False)
    url = sample.meta.get("url")
    uid, sha256 = sample.meta.get("uid", sample.key), sample.meta.get("sha256")
    if is_new or not isinstance(sha256, str):
        sha256 = hashlib.sha256(image or sample.image).hexdigest()
    rest = {name: value for name, value in sample.meta.items() if name not in ("uid", "url", "sha256")}
    files = [
        *([("url.txt", url.encode())] if isinstance(url, str) else []),
        *([(extension, image)] if with_image else []),
        ("txt", sample.captions[0].encode()),
        ("syn.json", _json({keys[name]: list(sample.synthetic[name]) for name in names})),
        ("paug.json", _json({"param_aug": list(views)})),
        (storage, _npz(arrays) if storage == "npz" else gzip.compress(write_torch_file(arrays), mtime=0)),
        ("json", _json({**rest, "uid": uid, "sha256": sha256})),
    ]
    return PublishedFiles(key=sample.key, files=files)


def write_published_tar(file: IO[bytes], samples: Iterable[PublishedFiles]) -> int:
    """Writes a published shard; the same samples give the same bytes.

    Args:
        file: open for writing.
        samples: in this order.

    Returns:
        How many they were.
    """
    num = 0
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            for extension, data in sample.files:
                info = tarfile.TarInfo(f"{sample.key}.{extension}")
                info.size, info.mode = len(data), 0o644
                tar.addfile(info, io.BytesIO(data))
            num += 1
    return num


def _picture(sample: Sample) -> tuple[str, bytes, bool]:
    """Extension and bytes of a picture that published tools see as our decoder does, and whether they are new."""
    picture = decode(sample.image, name=sample.key)
    _, _, seen = as_published(sample.image, name=sample.key)
    if seen.size == picture.size and seen.tobytes() == picture.tobytes():
        return sample.extension, sample.image, False
    picture.save(file := io.BytesIO(), "PNG")
    return "png", file.getvalue(), True


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(
        file, allow_pickle=False, **{name: np.asarray(rows, np.float32) for name, rows in arrays.items()}
    )
    return file.getvalue()


def _json(value: JsonValue) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()
