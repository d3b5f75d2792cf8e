"""Small pictures, and a look into what was packed."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from pocketclip.data.index import ShardIndex, split_shards
from pocketclip.data.sample import Sample
from pocketclip.data.shard import ShardReader

Encode = Callable[..., bytes]


@pytest.fixture(scope="session")
def encode() -> Encode:
    """Encodes a small picture of one colour."""

    def encode(kind: str = "PNG", *, colour: str = "red", size: int = 24, **options) -> bytes:
        file = io.BytesIO()
        Image.new("RGB", (size, size), colour).save(file, kind, **options)
        return file.getvalue()

    return encode


@pytest.fixture(scope="session")
def unpack() -> Callable[[Path, ShardIndex], dict[str, Sample]]:
    """Every sample of a packed folder, by its main caption."""

    def unpack(folder: Path, index: ShardIndex) -> dict[str, Sample]:
        samples: list[Sample] = []
        for split in index.splits:
            for path in split_shards(folder, split):
                with ShardReader(path) as shard:
                    samples.extend(shard)
        return {sample.captions[0]: sample for sample in samples}

    return unpack
