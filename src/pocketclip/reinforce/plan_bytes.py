"""How many bytes reinforced samples take: arithmetic on counts and widths, for which no embedding has to be made."""

# Shape suffixes: N samples, A views of each, T captions of all of them, P parameters of a view, D dimensions.

from __future__ import annotations

import io
import math
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pocketclip.data import codec, codec_q4
from pocketclip.data.augment_spec import AugmentSpec
from pocketclip.data.codec import Codec
from pocketclip.data.codec_q4 import SIDES
from pocketclip.data.reinforcement import Embeddings, ReinforcementWriter, TeacherRecord
from pocketclip.data.sample import Sample
from pocketclip.data.shard import shard_writer
from pocketclip.data.tables import Kind

_ITEM_BYTES: Mapping[Kind, int] = {"F32": 4, "BF16": 2, "U16": 2, "I8": 1, "I32": 4, "I64": 8}
_TAR_BLOCK, _TAR_RECORD = 512, 10_240
_TEXT_SUFFIXES = (".txt", ".json")


@dataclass(frozen=True, kw_only=True)
class SampleBytes:
    """What a sample takes besides its reinforcement, bytes, mean of some samples.

    Attributes:
        picture: the encoded picture.
        captions: all captions and details.
        tar: headers and padding of the three members.
    """

    picture: float
    captions: float
    tar: float


@dataclass(frozen=True, kw_only=True)
class ShardShape:
    """What the size of a shard's reinforcement depends on.

    Attributes:
        num_samples: N.
        num_views: A.
        num_texts: T.
        augment: what views are drawn from; it gives P.
        widths: teacher's name -> D.
    """

    num_samples: int
    num_views: int
    num_texts: int
    augment: AugmentSpec
    widths: Mapping[str, int]


def sample_bytes(samples: Sequence[Sample]) -> SampleBytes:
    """Measures samples by writing them, into memory."""
    file = io.BytesIO()
    writer = shard_writer(file, path=Path("train/plan.tar"))
    for sample in samples:
        writer.add(sample)
    num_bytes = writer.entry().num_bytes
    writer.finish()
    file.seek(0)
    with tarfile.open(fileobj=file) as tar:
        sizes = [(member.name.endswith(_TEXT_SUFFIXES), member.size) for member in tar]
    texts = sum(size for is_text, size in sizes if is_text)
    pictures = sum(size for is_text, size in sizes if not is_text)
    num = len(samples)
    return SampleBytes(picture=pictures / num, captions=texts / num, tar=(num_bytes - texts - pictures) / num)


def table_bytes(shape: ShardShape, *, codec_name: Codec) -> dict[str, int]:
    """Bytes of a shard's tables, by what they are for.

    Args:
        shape: of the shard.
        codec_name: how embeddings are stored.

    Returns:
        `parameters`; `image/NAME` and `text/NAME` of each teacher; `shared`: offsets of the captions and, with q4,
        the teachers' bases. All are exact but q4's: where a shard has many rows they are the most that it takes, a
        few thousandths too much, and how it divides them between images and texts depends on the embeddings. Here
        all rows are taken to be equally long.
    """
    counts = {"image": shape.num_samples * shape.num_views, "text": shape.num_texts}
    parts = {
        "parameters": counts["image"] * shape.augment.num_params * _ITEM_BYTES["I32"],
        "shared": (shape.num_samples + 1) * _ITEM_BYTES["I64"],
    }
    if codec_name == "q4":
        parts["shared"] += len(codec_q4.all_levels()) * _ITEM_BYTES["F32"]
    for name, width in shape.widths.items():
        if codec_name == "q4":
            words = _q4_row_words(num_rows=sum(counts.values()), embed_dim=width)
            parts |= {f"{side}/{name}": round(2 * words * counts[side]) for side in SIDES}
            parts["shared"] += round(2 * words * width) + _q4_constants(width)
            continue
        for side in SIDES:
            tables = codec.expected(codec=codec_name, num_rows=counts[side], embed_dim=width)
            parts[f"{side}/{name}"] = sum(
                math.prod(dims) * _ITEM_BYTES[kind] for kind, dims in tables.values()
            )
    return parts


def _q4_row_words(*, num_rows: int, embed_dim: int) -> float:
    """Words of a row, at most; the basis has `embed_dim` rows more."""
    rows = num_rows + embed_dim
    return min(codec_q4.most_words(num_rows=num_rows, embed_dim=embed_dim) / rows, embed_dim)


def _q4_constants(embed_dim: int) -> int:
    """Bytes of scales, means and segments, at most: three scales of all dimensions, two means, three tables."""
    segments = 3 * len(codec_q4.BASE) * 2 * _ITEM_BYTES["I32"]
    return 5 * embed_dim * _ITEM_BYTES["F32"] + segments


def shard_frame_bytes(shape: ShardShape, *, codec_name: Codec) -> float:
    """Bytes of a shard that belong to no sample: the block's header, its member's, and the end of the tar.

    The tar ends on a whole record of 10,240 bytes; half of one is taken for that.
    """
    records = [
        TeacherRecord(name=name, embed_dim=1, logit_scale=100.0, digest="0" * 64) for name in shape.widths
    ]
    one = Embeddings(image_NAD=np.ones((1, 1, 1), np.float32), text_TD=np.ones((1, 1), np.float32))
    with ReinforcementWriter(augment=shape.augment, codec=codec_name, teachers=records) as writer:
        params_NAP = np.zeros((1, 1, shape.augment.num_params), np.int32)
        writer.add(params_NAP, [1], [one for _ in records])
        block = writer.finish(config_digest="0" * 64, input_sha256="0" * 64, dropped={})
        header = int.from_bytes(next(iter(block.chunks))[:8], "little") + 8
    return _TAR_BLOCK + header + 2 * _TAR_BLOCK + _TAR_RECORD / 2
