"""The small index of an exported page: pictures of a folder as 8-bit embeddings, thumbnails and names, in one file.

Shapes: N pictures, D embedding.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from safetensors.numpy import save

from pocketclip.data.picture import EXTENSIONS, PictureError, decode
from pocketclip.data.publish import publish_file
from pocketclip.runtime import ExportedModel

GALLERY_FILE = "pictures.safetensors"
MAX_PICTURES = 20_000
"""A page fetches the whole index at once, about 5 kB a picture."""

_THUMBNAIL_PX = 192
_QUALITY = 70
_BATCH = 32
_SUFFIXES = frozenset(f".{extension}" for extension in (*EXTENSIONS.values(), "jpeg", "tif"))


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """What became of a folder of pictures.

    Attributes:
        num_pictures: N that are in the index.
        unreadable: sentences about those that are not.
    """

    num_pictures: int
    unreadable: tuple[str, ...]


def write_gallery(folder: Path, pictures: Path, *, model: ExportedModel) -> Gallery:
    """Writes `pictures.safetensors` into an exported folder.

    Its arrays: `embed` int8 [N, D] and `scale` float32 [N], whose product is the embedding; `thumbnails` uint8, WebP
    one after the other, and `ends` int64 [N], where each ends; `names` uint8, JSON of paths within the folder.

    Args:
        folder: of the export.
        pictures: a folder, searched with all folders in it.
        model: that embeds them.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: no picture in it, or too many.
    """
    paths = find_pictures(pictures)
    names: list[str] = []
    thumbnails: list[bytes] = []
    parts: list[npt.NDArray[np.float32]] = []
    unreadable: list[str] = []
    for batch in _batches(paths):
        images: list[Image.Image] = []
        for path in batch:
            name = path.relative_to(pictures).as_posix()
            try:
                image = decode(path.read_bytes(), name=name)
            except PictureError as error:
                unreadable.append(str(error))
                continue
            images.append(image)
            names.append(name)
            thumbnails.append(_thumbnail(image))
        parts.append(model.embed_images(images))
    if not names:
        raise ValueError(f"{pictures}: none of its {len(paths)} pictures can be read ({unreadable[0]})")
    embed_ND = np.concatenate(parts)
    levels_ND = np.rint(embed_ND * (127 / np.abs(embed_ND).max(axis=1, keepdims=True)))
    arrays = {
        "embed": levels_ND.astype(np.int8),
        "scale": (1 / np.linalg.norm(levels_ND, axis=1)).astype(np.float32),
        "thumbnails": np.frombuffer(b"".join(thumbnails), np.uint8),
        "ends": np.cumsum([len(one) for one in thumbnails], dtype=np.int64),
        "names": np.frombuffer(json.dumps(names, ensure_ascii=False).encode(), np.uint8),
    }
    with publish_file(folder / GALLERY_FILE) as file:
        file.write(save(arrays))
    return Gallery(num_pictures=len(names), unreadable=tuple(unreadable))


def find_pictures(folder: Path) -> list[Path]:
    """Files of a folder, and of those in it, that are named as pictures are; hidden ones are passed over.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: none, or more than `MAX_PICTURES`.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder: give a folder of pictures with --pictures")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
    paths = [
        path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not paths:
        raise ValueError(
            f"{folder} holds no pictures (jpg, png, webp, ...): give another folder with --pictures"
        )
    if len(paths) > MAX_PICTURES:
        raise ValueError(
            f"{folder} holds {len(paths):,} pictures, and a page's index at most {MAX_PICTURES:,}: give fewer with "
            f"--pictures, or use `pocketclip serve`"
        )
    return paths


def _batches(paths: list[Path]) -> Iterator[list[Path]]:
    for start in range(0, len(paths), _BATCH):
        yield paths[start : start + _BATCH]


def _thumbnail(image: Image.Image) -> bytes:
    small = image.copy()
    small.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    data = io.BytesIO()
    small.save(data, "WEBP", quality=_QUALITY)
    return data.getvalue()
