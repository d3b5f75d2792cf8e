"""A part of a shard is read as a shard of its own: samples, reinforcement, batches, and what happens to its shard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.reinforced_folders import write_reinforced_shard

from pocketclip.data.augment import AugmentSpec
from pocketclip.data.part import part_bytes, read_part, shard_file
from pocketclip.data.publish import sha256_file
from pocketclip.data.reinforced import embeddings_of, reinforcement_of
from pocketclip.data.shard import ShardReader, write_shard
from pocketclip.data.stream import Stream, StreamConfig
from pocketclip.data.tokenize import Tokenizer, TokenizerConfig


def write_part(path: Path, shard: Path, rows: list[int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    relative = Path("..") / shard.name
    path.write_bytes(
        part_bytes(
            np.array(rows),
            shard=relative.as_posix(),
            num_bytes=shard.stat().st_size,
            sha256=sha256_file(shard),
        )
    )
    return path


@pytest.fixture
def shard(tmp_path: Path, make_samples: Callable) -> Path:
    path = tmp_path / "000000.tar"
    write_shard(path, make_samples(9))
    return path


def test_has_the_named_samples_in_the_named_order(shard: Path, tmp_path: Path) -> None:
    part = write_part(tmp_path / "kept" / "000000.rows", shard, [7, 0, 0, 3])
    with ShardReader(part) as some, ShardReader(shard) as all_of_them:
        assert [sample.key for sample in some] == [all_of_them.keys[row] for row in (7, 0, 0, 3)]
        assert some[0].image == all_of_them[7].image
    assert shard_file(part).samefile(shard)
    assert shard_file(shard) == shard


def test_batches_of_a_part_are_batches_of_a_shard_with_the_same_samples(
    shard: Path, tmp_path: Path, make_samples: Callable
) -> None:
    part = write_part(tmp_path / "kept" / "000000.rows", shard, [1, 4, 5, 8])
    copy = tmp_path / "copy.tar"
    samples = make_samples(9)
    write_shard(copy, [samples[row] for row in (1, 4, 5, 8)])
    tokenizer = Tokenizer(TokenizerConfig(vocab_size=4096, context_length=16))
    for num_workers in (0, 1):
        config = StreamConfig(batch_size=2, image_px=16, num_workers=num_workers)
        with (
            Stream([part], config=config, tokenizer=tokenizer) as one,
            Stream([copy], config=config, tokenizer=tokenizer) as other,
        ):
            for mine, theirs, _ in zip(one, other, range(4), strict=False):
                assert mine.keys == theirs.keys
                assert (mine.pixels_BHWC == theirs.pixels_BHWC).all()
                assert (mine.tokens_BL == theirs.tokens_BL).all()


def test_reinforcement_goes_with_its_samples(tmp_path: Path, make_samples: Callable) -> None:
    shard = tmp_path / "000000.tar"
    write_reinforced_shard(shard, make_samples(6), spec=AugmentSpec())
    part = write_part(tmp_path / "kept" / "000000.rows", shard, [5, 2])
    with ShardReader(part) as some, ShardReader(shard) as all_of_them:
        block, stored = reinforcement_of(some), reinforcement_of(all_of_them)
        assert len(block) == 2
        assert (block.params(0) == stored.params(5)).all()
        assert block.text_counts().tolist() == stored.text_counts()[[5, 2]].tolist()
        for mine, theirs in zip(
            embeddings_of(block, np.array([0, 1])), embeddings_of(stored, np.array([5, 2])), strict=True
        ):
            assert (mine.image_NAD == theirs.image_NAD).all()
            assert (mine.text_TD == theirs.text_TD).all()


def test_a_shard_that_was_changed_or_moved_is_told(shard: Path, tmp_path: Path) -> None:
    part = write_part(tmp_path / "kept" / "000000.rows", shard, [1])
    moved = shard.rename(tmp_path / "elsewhere.tar")
    with pytest.raises(FileNotFoundError, match=r"000000\.tar, which is not there"):
        ShardReader(part)
    moved.rename(shard)
    with shard.open("ab") as file:
        file.write(bytes(512))
    with pytest.raises(ValueError, match="was made when it had"):
        ShardReader(part)


def test_rows_beyond_the_shard_and_damage_are_told(shard: Path, tmp_path: Path) -> None:
    part = write_part(tmp_path / "kept" / "000000.rows", shard, [9])
    with pytest.raises(ValueError, match="names sample 9 of a shard of 9"):
        ShardReader(part)
    whole = part.read_bytes()
    for end in range(0, len(whole) - 1, 7):
        part.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"000000\.rows is damaged"):
            read_part(part)
