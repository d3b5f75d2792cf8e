"""Batches are a function of seed and position; stored views and rows come back together; damage is skipped."""

import itertools

import numpy as np
import pytest

from pocketclip.data.augment import AugmentSpec, apply, draw, pack, seeded, unpack
from pocketclip.data.index import split_shards
from pocketclip.data.picture import decode
from pocketclip.data.reinforcement import Embeddings, Reinforcement, TeacherRecord, pack_reinforcement
from pocketclip.data.shard import ShardReader, write_shard
from pocketclip.data.stream import Position, Stream, StreamConfig
from pocketclip.data.tokenize import Tokenizer, TokenizerConfig

TOKENIZER = Tokenizer(TokenizerConfig(vocab_size=1024, context_length=16))


def take(shards, num, *, position=None, **settings):
    config = StreamConfig(**{"batch_size": 10, "image_px": 24, **settings})
    with Stream(shards, config=config, tokenizer=TOKENIZER, position=position) as stream:
        taken = [(batch, stream.position) for batch in itertools.islice(stream, num)]
        return taken, dict(stream.dropped)


def same(one, two):
    assert one.keys == two.keys
    np.testing.assert_array_equal(one.pixels_BHWC, two.pixels_BHWC)
    np.testing.assert_array_equal(one.tokens_BL, two.tokens_BL)


@pytest.fixture(scope="module")
def shards(shapes):
    return split_shards(shapes, "train")


@pytest.fixture(scope="module")
def reinforced(tmp_path_factory, make_samples):
    """One shard whose stored rows are numbers that tell sample, view and caption."""
    samples = make_samples(20)
    spec = AugmentSpec(scale=(0.5, 1.0))
    params = np.stack(
        [
            np.stack([pack(draw(seeded(i, a), width=72, height=72, spec=spec)) for a in range(3)])
            for i in range(len(samples))
        ]
    )
    counts = [len(sample.texts()) for sample in samples]
    image = np.stack([[[1.0, i, a] for a in range(3)] for i in range(len(samples))]).astype(np.float32)
    text = np.array([[1.0, i, t] for i, n in enumerate(counts) for t in range(n)], dtype=np.float32)
    record = TeacherRecord(name="one", embed_dim=3, logit_scale=33.0, digest="d")
    block = pack_reinforcement(
        config_digest="c",
        input_sha256="i",
        augment=spec,
        codec="fp32",
        params_NAP=params,
        text_counts=counts,
        teachers=[(record, Embeddings(image_NAD=image, text_TD=text))],
        dropped={},
    )
    path = tmp_path_factory.mktemp("reinforced") / "train" / "000000.tar"
    write_shard(path, samples, blocks={"reinforcement": block})
    return path, samples


def test_threads_and_cache_change_nothing(shards):
    plain, _ = take(shards, 9)
    for settings in ({"num_threads": 3}, {"cache_mb": 16}, {"num_threads": 2, "cache_mb": 1}):
        for (one, where), (two, there) in zip(plain, take(shards, 9, **settings)[0], strict=True):
            same(one, two)
            assert where == there


def test_any_saved_position_goes_on_with_the_same_batches(shards):
    whole, _ = take(shards, 11)  # four batches an epoch: two borders
    assert whole[3][1] == Position(1, 0)
    for number in range(10):
        rest, _ = take(shards, 10 - number, position=whole[number][1])
        for (one, _), (two, _) in zip(whole[number + 1 :], rest, strict=True):
            same(one, two)


def test_an_epoch_shows_every_sample_once_and_the_next_in_another_order(shards):
    taken, _ = take(shards, 8, batch_size=12)
    first = [key for batch, _ in taken[:4] for key in batch.keys]
    second = [key for batch, _ in taken[4:] for key in batch.keys]
    assert len(set(first)) == len(first) == 48
    assert sorted(first) == sorted(second)
    assert first != second
    other, _ = take(shards, 4, batch_size=12, seed=1)
    assert first != [key for batch, _ in other for key in batch.keys]


def test_replay_shows_the_stored_view_with_its_own_rows(reinforced):
    path, samples = reinforced
    by_key = {sample.key: (i, sample) for i, sample in enumerate(samples)}
    with ShardReader(path) as reader:
        params = Reinforcement(reader.block("reinforcement"), name="x").augment_params_NAP.copy()
    spec = AugmentSpec(scale=(0.5, 1.0))
    views = set()
    for batch, _ in take([path], 6, replay=True, synthetic="rule")[0]:
        rows = batch.stored["one"]
        assert rows.logit_scale == 33.0
        for b, key in enumerate(batch.keys):
            i, sample = by_key[key]
            _, row, view = rows.image_BD[b]
            assert row == i
            views.add(int(view))
            replayed = apply(decode(sample.image, name=key), unpack(params[i, int(view)]), size=24, spec=spec)
            np.testing.assert_array_equal(batch.pixels_BHWC[b], np.asarray(replayed))
            for tokens, stored in (
                (batch.tokens_BL[b], rows.text_BD[b]),
                (batch.synthetic_BL[b], rows.synthetic_BD[b]),
            ):
                assert stored[1] == i
                np.testing.assert_array_equal(tokens, TOKENIZER(sample.texts()[int(stored[2])])[0])
            assert rows.text_BD[b, 2] < len(sample.captions) <= rows.synthetic_BD[b, 2]
    assert views == {0, 1, 2}


def test_main_caption_only_never_reads_another(shards, make_samples):
    with_all = {tuple(row) for batch, _ in take(shards, 8)[0] for row in batch.tokens_BL.tolist()}
    main = {
        tuple(row)
        for batch, _ in take(shards, 8, main_caption_only=True)[0]
        for row in batch.tokens_BL.tolist()
    }
    mains = {tuple(TOKENIZER(sample.captions[0])[0].tolist()) for sample in make_samples(48, prefix="train")}
    assert main <= mains
    assert not with_all <= mains


def test_a_damaged_picture_is_skipped_and_named(tmp_path, make_samples):
    samples = make_samples(10)
    object.__setattr__(samples[4], "image", samples[4].image[:60])
    path = tmp_path / "train" / "000000.tar"
    write_shard(path, samples)
    taken, dropped = take([path], 3)
    assert [len(batch.keys) for batch, _ in taken] == [9, 9, 9]
    assert list(dropped) == [samples[4].key]
    assert "000000.tar" in dropped[samples[4].key].source
    for sample in samples:
        object.__setattr__(sample, "image", b"")
    broken = tmp_path / "train" / "000001.tar"
    write_shard(broken, samples)
    with pytest.raises(ValueError, match="every sample of a batch failed"):
        take([broken], 1)


def test_what_does_not_fit_is_said(shards, reinforced):
    with pytest.raises(ValueError, match=r"not reinforced: run `pocketclip reinforce`"):
        take(shards, 1, replay=True)
    with pytest.raises(ValueError, match="48 samples are fewer than one batch of 49"):
        take(shards, 1, batch_size=49)
    with pytest.raises(ValueError, match="no synthetic caption of /nobody/"):
        take(shards, 1, synthetic="nobody")
    with pytest.raises(ValueError, match="at least 1"):
        StreamConfig(batch_size=0, image_px=8)
