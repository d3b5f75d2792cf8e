"""Bytes and errors of the codecs beside the published layouts, on the same made embeddings.

    .venv/bin/python benchmarks/codecs.py

No weights are needed. Two teachers of width 768 are made up: rows around a mean for each side, a spectrum that decays
as 1 / rank^decay, an image and its texts that share a part, views and captions that share more. The shares are such
that plain 4 bits (groups of 32), 8 bits and bfloat16 move the distillation target at a scale of 100 by about 9%, 0.7%
and 0.15% total variation, as they do on CLIP's own embeddings. Prints a Markdown table for each number of views.
"""

from __future__ import annotations

import gzip
import io
from dataclasses import dataclass

import numpy as np
import torch
import tyro

from pocketclip.data.augment_spec import AugmentSpec
from pocketclip.data.codec import CODECS, Codec
from pocketclip.data.codec_error import cosines, target_error
from pocketclip.data.reinforcement import Embeddings, Reinforcement, TeacherRecord, pack_reinforcement
from pocketclip.data.tables import read_tables

TEXTS = 6  # one ground-truth caption and five synthetic ones
LOGIT_SCALE = 100.0


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to measure."""

    views: tuple[int, ...] = (2, 10, 30)
    """Of each picture; a table for each."""
    samples: int = 1000
    """Of a shard."""
    decay: tuple[float, ...] = (1.0, 0.8, 1.3)
    """Of the spectrum; the size is measured with the first."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """What a way of storing costs."""

    num_bytes: float
    cosine_image: float
    cosine_text: float
    kl: float
    tv: list[float]


def main(arguments: Arguments) -> None:
    for num_views in arguments.views:
        made = [
            [embeddings(arguments.samples, num_views, decay=decay, seed=seed) for seed in (0, 1)]
            for decay in arguments.decay
        ]
        published = pth_gz_bytes(made[0])
        lines = {"pth.gz, bf16 (published)": stored_line(made, bfloat16, num_bytes=published)}
        lines["npz, fp32 (published)"] = stored_line(made, lambda rows: rows, num_bytes=npz_bytes(made[0]))
        for codec in CODECS:
            lines[codec] = codec_line(made, codec)
        values = (num_views + TEXTS) * 2 * made[0][0].text_TD.shape[1]
        lines["plain 4 bits, groups of 32"] = stored_line(made, groups_of_32, num_bytes=values * 4.5 / 8)
        show(lines, published=published, num_views=num_views, arguments=arguments)


def show(lines: dict[str, Line], *, published: float, num_views: int, arguments: Arguments) -> None:
    """Prints a Markdown table."""
    print(f"\n{arguments.samples} samples, {num_views} views, {TEXTS} texts, two teachers of 768\n")
    columns = ["bytes a sample", "of pth.gz", "cosine image", "cosine text", "KL, nats"]
    columns += [f"TV, decay {decay}" for decay in arguments.decay]
    print("| | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name, line in lines.items():
        cells = [
            f"{line.num_bytes:,.0f}",
            f"{line.num_bytes / published:.3f}",
            f"{line.cosine_image:.5f}",
            f"{line.cosine_text:.5f}",
            f"{line.kl:.1e}",
            *(f"{100 * tv:.2f}%" for tv in line.tv),
        ]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def embeddings(num: int, num_views: int, *, decay: float, seed: int, width: int = 768) -> Embeddings:
    """One made-up teacher's rows of `num` samples."""
    rng = np.random.default_rng(seed)
    spectrum = np.arange(1.0, width + 1) ** -decay
    spread_D = np.sqrt(spectrum / spectrum.sum())
    axes_DD, other_DD = (np.linalg.qr(rng.standard_normal((width, width)))[0] for _ in range(2))

    def drawn(*shape: int) -> np.ndarray:
        return rng.standard_normal((*shape, width)) * spread_D

    first, second = np.linalg.qr(rng.standard_normal((width, 2)))[0].T
    mean_image, mean_text = np.sqrt(0.5) * first, np.sqrt(0.5) * (0.15 * first + 0.99 * second)
    shared = np.sqrt(0.12) * drawn(num, 1)
    image = shared + (np.sqrt(0.2) * drawn(num, 1) + np.sqrt(0.1) * drawn(num, num_views)) @ other_DD
    image = image + np.sqrt(0.1) * drawn(num, num_views)
    text = shared + np.sqrt(0.15) * (drawn(num, 1) @ other_DD + drawn(num, TEXTS))
    return Embeddings(
        image_NAD=unit(image @ axes_DD + mean_image),
        text_TD=unit(text @ axes_DD + mean_text).reshape(-1, width),
    )


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def both(made: list[Embeddings], row: int) -> tuple[np.ndarray, np.ndarray]:
    """One sample's rows as published: the teachers side by side."""
    texts = slice(row * TEXTS, (row + 1) * TEXTS)
    return (
        np.concatenate([one.image_NAD[row] for one in made], axis=1),
        np.concatenate([one.text_TD[texts] for one in made], axis=1),
    )


def pth_gz_bytes(made: list[Embeddings], *, num: int = 100) -> float:
    """Mean size of a published bf16 member, of the first `num` samples."""
    sizes = []
    for row in range(min(num, len(made[0].image_NAD))):
        image, text = both(made, row)
        file = io.BytesIO()
        tensors = {
            "image_emb": torch.from_numpy(image).bfloat16(),
            "text_emb": torch.from_numpy(text).bfloat16(),
        }
        torch.save(tensors, file)
        sizes.append(len(gzip.compress(file.getvalue())))
    return float(np.mean(sizes))


def npz_bytes(made: list[Embeddings], *, num: int = 100) -> float:
    """Mean size of a published fp32 member, of the first `num` samples."""
    sizes = []
    for row in range(min(num, len(made[0].image_NAD))):
        image, text = both(made, row)
        file = io.BytesIO()
        np.savez_compressed(file, image_emb=image, text_emb=text)
        sizes.append(len(file.getvalue()))
    return float(np.mean(sizes))


def bfloat16(rows: np.ndarray) -> np.ndarray:
    return torch.from_numpy(rows).bfloat16().float().numpy()


def groups_of_32(rows: np.ndarray) -> np.ndarray:
    """16 even levels, a scale in 16 bits for each 32 values."""
    groups = rows.reshape(-1, 32)
    scale = (np.abs(groups).max(axis=1, keepdims=True) / 7).astype(np.float16).astype(np.float32)
    return (np.clip(np.rint(groups / scale), -8, 7) * scale).reshape(rows.shape)


def stored_line(made: list[list[Embeddings]], through, *, num_bytes: float) -> Line:  # noqa: ANN001
    """The errors of rows that went through a function."""
    one = made[0][0]
    tv, kl = [], []
    for teachers in made:
        errors = [
            target_error(
                image_BD=teacher.image_NAD[:256, 0],
                text_BD=teacher.text_TD[: 256 * TEXTS : TEXTS],
                stored_image_BD=through(teacher.image_NAD[:256, 0]),
                stored_text_BD=through(teacher.text_TD[: 256 * TEXTS : TEXTS]),
                logit_scale=LOGIT_SCALE,
            )
            for teacher in teachers
        ]
        kl.append(float(np.mean([error[0] for error in errors])))
        tv.append(float(np.mean([error[1] for error in errors])))
    flat = one.image_NAD.reshape(-1, one.image_NAD.shape[-1])
    return Line(
        num_bytes=num_bytes,
        cosine_image=float(cosines(flat, through(flat)).mean()),
        cosine_text=float(cosines(one.text_TD, through(one.text_TD)).mean()),
        kl=kl[0],
        tv=tv,
    )


def codec_line(made: list[list[Embeddings]], codec: Codec) -> Line:
    """The size of a block's embeddings, and the errors in its header."""
    sizes, headers = [], []
    for teachers in made:
        num, num_views, width = teachers[0].image_NAD.shape
        records = [
            TeacherRecord(name=name, embed_dim=width, logit_scale=LOGIT_SCALE, digest="")
            for name in ("a", "b")
        ]
        block = pack_reinforcement(
            config_digest="",
            input_sha256="",
            augment=AugmentSpec(),
            codec=codec,
            params_NAP=np.zeros((num, num_views, AugmentSpec().num_params), np.int32),
            text_counts=[TEXTS] * num,
            teachers=list(zip(records, teachers, strict=True)),
            dropped={},
        )
        tables = read_tables(memoryview(block))
        sizes.append(
            sum(
                table.array.nbytes
                for name, table in tables.items()
                if name not in ("augment_params", "text_offsets")
            )
            / num
        )
        headers.append(Reinforcement(memoryview(block), name="made").header.errors)
    return Line(
        num_bytes=sizes[0],
        cosine_image=headers[0]["image/a"].cosine_mean,
        cosine_text=headers[0]["text/a"].cosine_mean,
        kl=float(np.mean([headers[0][f"image/{name}"].target_kl for name in "ab"])),
        tv=[float(np.mean([errors[f"image/{name}"].target_tv for name in "ab"])) for errors in headers],
    )


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
