"""Published reinforcements written by the letter of their description, with nothing of pocketclip in between.

    {uid}.{url.txt,jpg,txt,syn.json,paug.json,npz,pth.gz,json}

in tars; v1: `image_emb` [A, 1536], `text_emb` [1 + n, 1536]; v2: `image_emb`, `text_emb` [1, 1536] and `KEY_emb`
[n, 1536] for every key of synthetic captions; npz in float32, pth.gz a gzip of torch.save in bfloat16; `param_aug` a
list or a text.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH = 1536
CAPTIONS = 5


def magnitudes() -> list[tuple[float, bool]]:
    """The magnitude at index 9 of 31 bins at side 224 of each of the fourteen operations, and whether it has a sign."""

    def at_9(start: float, end: float) -> float:
        return float(np.linspace(start, end, 31, dtype=np.float32)[9])

    move = at_9(0.0, 150.0 / 331.0 * 224)
    factor = at_9(0.0, 0.9)
    posterize = float(8 - round(9 / ((31 - 1) / 4)))
    return [
        (0.0, False),
        (at_9(0.0, 0.3), True),
        (at_9(0.0, 0.3), True),
        (move, True),
        (move, True),
        (at_9(0.0, 30.0), True),
        *[(factor, True)] * 4,
        (posterize, False),
        (at_9(255.0, 0.0), False),
        (0.0, False),
        (0.0, False),
    ]


def draw_view(rng: random.Random, *, width: int, height: int) -> list:
    """[[top, left, height, width], [[operation, magnitude], [operation, magnitude]]]."""
    crop_h, crop_w = rng.randint(max(1, height // 3), height), rng.randint(max(1, width // 3), width)
    crop = [rng.randint(0, height - crop_h), rng.randint(0, width - crop_w), crop_h, crop_w]
    drawn = []
    for _ in range(2):
        number = rng.randrange(14)
        magnitude, signed = magnitudes()[number]
        drawn.append([number, -magnitude if signed and rng.random() < 0.5 else magnitude])
    return [crop, drawn]


def unit_rows(generator: np.random.Generator, num: int) -> np.ndarray:
    """Float32 [num, 1536], two blocks of 768 of length 1."""
    rows = generator.standard_normal((num, 2, WIDTH // 2)).astype(np.float32)
    return (rows / np.linalg.norm(rows, axis=2, keepdims=True)).reshape(num, WIDTH)


def draw_picture(seed: int, *, width: int = 96, height: int = 72, kind: str = "JPEG", **options) -> bytes:
    """A picture of smooth noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(file, kind, **options)
    return file.getvalue()


@dataclass
class Sample:
    """One published sample; tests change what they like before they write it."""

    uid: str
    image: bytes
    caption: str | None
    synthetic: dict[str, list[str]]
    param_aug: list
    image_emb: np.ndarray
    text_emb: np.ndarray  # of the ground-truth caption, [1, 1536]
    synthetic_emb: dict[str, np.ndarray]
    url: str = ""
    sha256: str = ""
    rest: dict = field(default_factory=dict)

    def arrays(self, generation: str, *, tag: str = "") -> dict[str, np.ndarray]:
        """Name -> array."""
        if generation == "v1":
            (rows,) = self.synthetic_emb.values()
            return {
                f"image_emb{tag}": self.image_emb,
                f"text_emb{tag}": np.concatenate([self.text_emb, rows]),
            }
        own = {f"{key}_emb{tag}": rows for key, rows in self.synthetic_emb.items()}
        return {f"image_emb{tag}": self.image_emb, f"text_emb{tag}": self.text_emb, **own}


def make_sample(
    number: int,
    *,
    num_views: int = 3,
    keys: Sequence[str] = ("syn_text",),
    image: bytes | None = None,
    url: str = "http://127.0.0.1:9/{uid}.jpg",
) -> Sample:
    """A sample with a picture of its own."""
    uid = hashlib.md5(f"sample {number}".encode(), usedforsecurity=False).hexdigest()
    rng, generator = random.Random(number), np.random.default_rng(number)
    image = draw_picture(number) if image is None else image
    with Image.open(io.BytesIO(image)) as picture:
        width, height = picture.size
    return Sample(
        uid=uid,
        image=image,
        caption=f"a picture of number {number}",
        synthetic={key: [f"{key} {i} of {number}" for i in range(CAPTIONS)] for key in keys},
        param_aug=[draw_view(rng, width=width, height=height) for _ in range(num_views)],
        image_emb=unit_rows(generator, num_views),
        text_emb=unit_rows(generator, 1),
        synthetic_emb={key: unit_rows(generator, CAPTIONS) for key in keys},
        url=url.format(uid=uid, number=number),
        sha256=hashlib.sha256(image).hexdigest(),
    )


def npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """`np.savez_compressed`, float32."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def pth_gz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """gzip of a torch-saved dict of bf16 tensors."""
    import torch

    file = io.BytesIO()
    torch.save({name: torch.tensor(array, dtype=torch.bfloat16) for name, array in arrays.items()}, file)
    return gzip.compress(file.getvalue())


def members(
    sample: Sample,
    *,
    generation: str = "v1",
    storage: str = "npz",
    views_as_text: bool = False,
    with_image: bool = False,
    with_caption: bool = True,
    tag: str = "",
) -> dict[str, bytes]:
    """Extension -> bytes of one sample, in the order of the tar."""
    views = json.dumps(sample.param_aug) if views_as_text else sample.param_aug
    files = {"url.txt": sample.url.encode()}
    if with_image:
        files["jpg"] = sample.image
    if with_caption and sample.caption is not None:
        files["txt"] = sample.caption.encode()
    files["syn.json"] = json.dumps(sample.synthetic).encode()
    files["paug.json"] = json.dumps({"param_aug": views}).encode()
    arrays = sample.arrays(generation, tag=tag)
    for kind, write in (("npz", npz), ("pth.gz", pth_gz)):
        if storage in (kind, "both"):
            files[kind] = write(arrays)
    files["json"] = json.dumps({"uid": sample.uid, "sha256": sample.sha256, **sample.rest}).encode()
    return files


def write_tar(path: Path, samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> Path:
    """A tar of samples: key and files of each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, files in samples:
            for extension, data in files.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def write_published(path: Path, samples: Iterable[Sample], **options) -> Path:
    """A published shard; options are those of `members`."""
    return write_tar(path, ((sample.uid, members(sample, **options)) for sample in samples))


def write_images(path: Path, samples: Iterable[Sample], *, with_uid: bool = True) -> Path:
    """A tar of downloaded pictures as img2dataset writes it: numbered, with caption and json."""

    def files(sample: Sample) -> dict[str, bytes]:
        record = {"url": sample.url, "caption": sample.caption, "sha256": sample.sha256, "status": "success"}
        if with_uid:
            record["uid"] = sample.uid
        caption = {"txt": sample.caption.encode()} if sample.caption is not None else {}
        return {"jpg": sample.image, **caption, "json": json.dumps(record).encode()}

    return write_tar(path, ((f"{number:09d}", files(sample)) for number, sample in enumerate(samples)))


def columns(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two teachers' blocks."""
    return rows[:, : WIDTH // 2], rows[:, WIDTH // 2 :]


def rounded(rows: np.ndarray) -> np.ndarray:
    """What bfloat16 keeps of float32, by torch."""
    import torch

    return torch.tensor(rows).bfloat16().float().numpy()


# The other way: a reader of the same layouts, by the letter of their description.


def read_tar(path: Path) -> dict[str, dict[str, bytes]]:
    """uid -> extension -> bytes."""
    groups: dict[str, dict[str, bytes]] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            uid, extension = member.name.split(".", 1)
            groups.setdefault(uid, {})[extension] = tar.extractfile(member).read()
    return groups


def read_arrays(files: Mapping[str, bytes]) -> dict[str, np.ndarray]:
    """The arrays of a sample in float32; npz wins where both are there."""
    if "npz" in files:
        with np.load(io.BytesIO(files["npz"]), allow_pickle=False) as arrays:
            assert all(arrays[name].dtype == np.float32 for name in arrays.files)
            return {name: arrays[name] for name in arrays.files}
    import torch

    tensors = torch.load(io.BytesIO(gzip.decompress(files["pth.gz"])), weights_only=True)
    assert all(tensor.dtype == torch.bfloat16 for tensor in tensors.values())
    return {name: tensor.float().numpy() for name, tensor in tensors.items()}


def text_row(
    arrays: Mapping[str, np.ndarray], key: str | None, number: int, *, num_gt: int = 1
) -> np.ndarray:
    """The row of ground-truth caption `number`, or of synthetic caption `number` of `key`."""
    if key is None:
        return arrays["text_emb"][number]
    if len(arrays["text_emb"]) > num_gt:
        return arrays["text_emb"][num_gt + number]
    return arrays[f"{key}_emb"][number]
