"""Small sets in the public mirror's layout, for tests and benchmarks."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

SHAPES = ("circle", "square", "triangle", "ring", "cross")
COLOURS = {"red": (210, 30, 30), "green": (20, 150, 60), "blue": (30, 60, 200), "yellow": (230, 200, 20)}


def encoded(image: Image.Image, *, kind: str = "PNG") -> bytes:
    """A picture as bytes; webp as the mirror has it, lossless."""
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **({"lossless": True} if kind == "WEBP" else {}))
    return buffer.getvalue()


def npy(values: Sequence[int]) -> bytes:
    """An array as the mirror stores metadata."""
    buffer = io.BytesIO()
    np.save(buffer, np.array(values), allow_pickle=False)
    return buffer.getvalue()


def drawing(rng: np.random.Generator, shape: str, colour: tuple[int, int, int]) -> Image.Image:
    """A shape somewhere on noise, of no size in particular."""
    width, height = (int(side) for side in rng.integers(60, 110, size=2))
    noise = rng.integers(0, 90, size=(height, width, 3), dtype=np.uint8)
    image = Image.fromarray(255 - noise)
    draw = ImageDraw.Draw(image)
    side = int(rng.integers(26, 50))
    left, top = (int(rng.integers(0, edge - side)) for edge in (width, height))
    box = (left, top, left + side, top + side)
    match shape:
        case "circle":
            draw.ellipse(box, fill=colour)
        case "square":
            draw.rectangle(box, fill=colour)
        case "triangle":
            draw.polygon(
                [(left, top + side), (left + side, top + side), (left + side // 2, top)], fill=colour
            )
        case "ring":
            draw.ellipse(box, outline=colour, width=6)
        case "cross":
            draw.line(box, fill=colour, width=7)
            draw.line((left + side, top, left, top + side), fill=colour, width=7)
    return image


def write_tar(path: Path, samples: Iterable[Mapping[str, bytes]], *, start: int = 0) -> None:
    """A tar of samples, extension -> bytes each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number, sample in enumerate(samples, start=start):
            for extension, data in sample.items():
                info = tarfile.TarInfo(f"s{number:07d}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def write_mirror(
    folder: Path,
    samples: Sequence[Mapping[str, bytes]],
    *,
    names: Sequence[str] = (),
    templates: Sequence[str] = (),
    kind: str = "",
    shards: int = 2,
) -> Path:
    """A set as the public mirror has it."""
    step = -(-len(samples) // shards)
    for number in range(shards):
        start = number * step
        write_tar(folder / f"test/{number}.tar", samples[start : start + step], start=start)
    (folder / "test/nshards.txt").write_text(f"{shards}\n")
    for name, lines in (("classnames", names), ("zeroshot_classification_templates", templates)):
        if lines:
            (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    if kind:
        (folder / "dataset_type.txt").write_text(f"{kind}\n")
    return folder


def shapes_set(folder: Path, *, count: int = 60, seed: int = 0, kind: str = "WEBP") -> Path:
    """Shapes by class, not as many of each."""
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(count):
        label = int(rng.integers(0, len(SHAPES)) * rng.integers(0, 2) + rng.integers(0, 2)) % len(SHAPES)
        image = drawing(rng, SHAPES[label], tuple(COLOURS.values())[int(rng.integers(0, 4))])
        samples.append({kind.lower(): encoded(image, kind=kind), "cls": str(label).encode()})
    return write_mirror(folder, samples, names=SHAPES, templates=("a photo of a {c}.", "a drawing of a {c}."))


def accuracy(output: torch.Tensor, target: torch.Tensor, topk: tuple[int, ...] = (1,)) -> list[float]:
    """In the place of clip_benchmark's `accuracy`, which ends in a float() that numpy from 2.5 on refuses."""
    found = output.topk(max(topk), 1, True, True)[1].eq(target[:, None])
    return [found[:, :k].any(dim=1).double().mean().item() for k in topk]


def captions_set(folder: Path, *, count: int = 40, seed: int = 0) -> Path:
    """Pictures with two captions each, no two of which are equal."""
    rng = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        shape, colour = SHAPES[number % len(SHAPES)], list(COLOURS)[number % len(COLOURS)]
        image = drawing(rng, shape, COLOURS[colour])
        text = f"a {colour} {shape}, number {number}\nthe {number} of the {shape}s is {colour}"
        samples.append({"jpg": encoded(image, kind="JPEG"), "txt": text.encode()})
    return write_mirror(folder, samples, kind="retrieval")
