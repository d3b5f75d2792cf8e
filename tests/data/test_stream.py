"""Batches: a function of seed and place alone, every sample once an epoch, stored rows those of the very batch."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.conftest import shape_samples

from pocketclip.data.augment import AugmentSpec, apply, unpack
from pocketclip.data.index import split_shards
from pocketclip.data.picture import decode, open_picture
from pocketclip.data.reinforcement import BLOCK_NAME, Reinforcement
from pocketclip.data.shard import ShardReader, write_shard
from pocketclip.data.stream import Position, Stream, StreamConfig
from pocketclip.data.tokenize import Tokenizer, TokenizerConfig

TOKENIZER = Tokenizer(TokenizerConfig(vocab_size=600, context_length=64))
PX = 24


def open_stream(shards, *, position=None, rank=0, num_ranks=1, **config):
    config = StreamConfig(**{"batch_size": 16, "image_px": PX, **config})
    return Stream(
        shards, config=config, tokenizer=TOKENIZER, position=position, rank=rank, num_ranks=num_ranks
    )


def take(num, shards, **more):
    with open_stream(shards, **more) as stream:
        return list(islice(stream, num))


def fingerprint(batch):
    """Every byte of a batch."""
    stored = [
        (name, rows.logit_scale, rows.image_BD.tobytes(), rows.text_BD.tobytes(), bytes_of(rows.synthetic_BD))
        for name, rows in batch.stored.items()
    ]
    pixels = (batch.pixels_BHWC.shape, batch.pixels_BHWC.tobytes())
    return batch.keys, pixels, batch.tokens_BL.tobytes(), bytes_of(batch.synthetic_BL), stored, batch.dropped


def bytes_of(array):
    return None if array is None else array.tobytes()


def fingerprints(num, shards, **more):
    return [fingerprint(batch) for batch in take(num, shards, **more)]


def write_shards(folder, *shards):
    paths = [folder / "train" / f"{number:06d}.tar" for number in range(len(shards))]
    for path, samples in zip(paths, shards, strict=True):
        write_shard(path, samples)
    return paths


@pytest.fixture(scope="module")
def plain(shapes):
    return split_shards(shapes, "train")


@pytest.fixture(scope="module")
def stored(reinforced):
    return split_shards(reinforced, "train")


def samples_of(shards):
    return {sample.key: sample for path in shards for sample in ShardReader(path)}


@pytest.mark.parametrize("replay", [False, True])
def test_threads_and_cache_change_no_byte(plain, stored, replay):
    shards, config = (stored if replay else plain), {"replay": replay, "synthetic": "rule", "seed": 3}
    expected = fingerprints(7, shards, **config)  # three batches an epoch
    for num_threads, cache_mb in [(3, 0), (1, 1), (4, 64)]:
        assert fingerprints(7, shards, num_threads=num_threads, cache_mb=cache_mb, **config) == expected


def test_a_cache_decodes_every_picture_once(plain, monkeypatch):
    decoded = []
    monkeypatch.setattr(
        "pocketclip.data.builder.open_picture",
        lambda data, *, name: decoded.append(name) or open_picture(data, name=name),
    )
    take(9, plain, cache_mb=64)
    assert len(decoded) == len(set(decoded)) == 48
    decoded.clear()
    take(6, plain)
    assert len(decoded) > 90


@settings(deadline=None, max_examples=15)
@given(st.data())
def test_going_on_from_any_position_gives_the_batches_that_would_have_come(plain, stored, data):
    batch_size = data.draw(st.sampled_from([5, 16, 48]))
    replay = data.draw(st.booleans())
    config = {"batch_size": batch_size, "replay": replay, "seed": 1}
    shards = stored if replay else plain
    num = data.draw(st.integers(1, 2 * (48 // batch_size) + 1))
    with open_stream(shards, num_threads=2, **config) as first:
        batches = iter(first)
        for _ in range(num):
            next(batches)
        position = first.position
        expected = [fingerprint(next(batches)) for _ in range(2)]
    epoch, batch = divmod(num, 48 // batch_size)
    assert position == Position(epoch, batch * batch_size)
    assert fingerprints(2, shards, position=position, **config) == expected


def test_every_sample_comes_once_an_epoch_but_for_an_incomplete_batch(plain):
    with open_stream(plain, batch_size=5, num_threads=2) as stream:
        assert len(stream) == 9
        batches = iter(stream)
        epochs = [[key for batch in islice(batches, 9) for key in batch.keys] for _ in range(4)]
    for keys in epochs:
        assert len(set(keys)) == len(keys) == 45
    assert set().union(*epochs) == samples_of(plain).keys()
    assert len({tuple(keys) for keys in epochs}) == 4


def test_another_seed_is_another_order_and_another_view(plain):
    seeds = [take(3, plain, seed=seed) for seed in (0, 1)]
    orders = [[key for batch in batches for key in batch.keys] for batches in seeds]
    assert orders[0] != orders[1]
    pixels = [
        {
            key: row.tobytes()
            for batch in batches
            for key, row in zip(batch.keys, batch.pixels_BHWC, strict=True)
        }
        for batches in seeds
    ]
    assert sum(pixels[0][key] != pixels[1][key] for key in pixels[0]) > 40


def test_a_sample_is_seen_anew_each_epoch(plain):
    batches = take(8, plain, batch_size=48)
    views = [batch.pixels_BHWC[batch.keys.index("train0007")].tobytes() for batch in batches]
    texts = [batch.tokens_BL[batch.keys.index("train0007")].tobytes() for batch in batches]
    assert len(set(views)) == 8
    assert len(set(texts)) == 2


def test_resampling_draws_with_replacement_and_sees_a_sample_anew_each_time(plain):
    batches = take(9, plain, resample=True, seed=2)  # three epochs of 48
    keys = [key for batch in batches for key in batch.keys]
    for epoch in range(3):
        assert len(set(keys[48 * epoch : 48 * epoch + 48])) < 44  # 30 are expected
    assert set(keys) > set(keys[:48])
    seen = {}
    for batch in batches[:3]:
        for key, pixels_HWC in zip(batch.keys, batch.pixels_BHWC, strict=True):
            seen.setdefault(key, []).append(pixels_HWC.tobytes())
    again = [views for views in seen.values() if len(views) > 1]
    assert again
    assert all(len(set(views)) == len(views) for views in again)


@pytest.mark.parametrize("config", [{"resample": True}, {"sizes_px": (16, 24, 32)}, {"decode": "fast"}])
def test_going_on_gives_the_same_batches_however_they_are_drawn(plain, config):
    config = {"num_threads": 2, "seed": 3, **config}
    expected = fingerprints(8, plain, **config)
    with open_stream(plain, **config) as stream:
        batches = iter(stream)
        found = [fingerprint(next(batches)) for _ in range(4)]
        position = stream.position
    assert position == Position(1, 16)
    assert found + fingerprints(4, plain, position=position, **config) == expected


@pytest.mark.parametrize("config", [{"resample": True}, {"sizes_px": (16, 24, 32)}])
def test_ranks_share_whatever_is_drawn(plain, config):
    alone = take(4, plain, **config)
    pair = [take(4, plain, batch_size=8, rank=rank, num_ranks=2, **config) for rank in range(2)]
    for one, *parts in zip(alone, *pair, strict=True):
        assert one.keys == tuple(key for part in parts for key in part.keys)
        np.testing.assert_array_equal(one.pixels_BHWC, np.concatenate([part.pixels_BHWC for part in parts]))


def test_each_batch_has_a_side_of_its_own_and_every_side_comes(plain):
    sides = [batch.pixels_BHWC.shape[1:] for batch in take(30, plain, sizes_px=(16, 20, 32))]
    assert set(sides) == {(side, side, 3) for side in (16, 20, 32)}
    assert min(sides.count(side) for side in set(sides)) > 3
    keys = [batch.keys for batch in take(4, plain, sizes_px=(16, 20, 32))]
    assert keys == [batch.keys for batch in take(4, plain)]


def photo(seed, size=192):
    """Waves of every length up to a tenth of the picture."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:size, 0:size] / size * 6.28
    pixels = np.full((size, size, 3), 127.0)
    for _ in range(12):
        down, across, phase = *rng.integers(-9, 10, 2), rng.random(3) * 6
        pixels += 12 * np.sin(down * rows + across * columns)[..., None] * np.cos(phase)
    file = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=95)
    return file.getvalue()


def test_fast_decoding_shows_the_same_views_within_a_few_levels(tmp_path):
    samples = [replace(sample, image=photo(i), extension="jpg") for i, sample in enumerate(shape_samples(24))]
    shards = write_shards(tmp_path, samples)
    # Colours are not stretched here, so that the difference is that of decoding and resizing.
    config = {"batch_size": 24, "image_px": 48, "augment": AugmentSpec(num_ops=0), "seed": 1}
    (exact,), (fast,) = (take(1, shards, decode=decode, **config) for decode in ("exact", "fast"))
    assert fast.keys == exact.keys
    np.testing.assert_array_equal(fast.tokens_BL, exact.tokens_BL)
    difference = np.abs(fast.pixels_BHWC.astype(int) - exact.pixels_BHWC)
    assert 0 < difference.mean() < 1.5
    assert difference.max() < 40


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "batch_size.* at least 1"),
        ({"sizes_px": (24, 0)}, "sizes_px .*at least 1"),
        ({"synthetic": "x", "synthetic_share": 1.5}, r"synthetic_share must be in \[0, 1\]"),
        ({"synthetic_share": 0.5}, "synthetic_share needs synthetic captions: set synthetic"),
        ({"num_workers": -1}, "num_workers and cache_mb must be at least 0"),
        ({"decode": "quick"}, "decode must be exact or fast, got 'quick'"),
    ],
)
def test_configurations_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        StreamConfig(**{"batch_size": 4, "image_px": 24, **wrong})


def test_the_main_caption_alone_where_that_is_asked(plain):
    samples = samples_of(plain)
    for batch in take(4, plain, main_caption_only=True):
        expected = TOKENIZER([samples[key].captions[0] for key in batch.keys])
        np.testing.assert_array_equal(batch.tokens_BL, expected)


def damaged(sample, *, keep=60):
    return replace(sample, image=sample.image[:keep])


def test_a_damaged_picture_is_left_out_counted_and_named(tmp_path):
    samples = shape_samples(8)
    samples[5] = damaged(samples[5])
    shards = write_shards(tmp_path, samples[:3], samples[3:])
    with open_stream(shards, batch_size=8, num_threads=2) as stream:
        batches = list(islice(stream, 3))
    for batch in batches:
        assert sorted(batch.keys) == sorted(sample.key for sample in samples if sample is not samples[5])
        assert len(batch.pixels_BHWC) == len(batch.tokens_BL) == 7
    (dropped,) = stream.dropped.values()
    assert dropped.source == "train/000001.tar: sample0005"
    assert "damaged or cut off" in dropped.reason
    # The others are what they would have been without it.
    good = take(1, write_shards(tmp_path / "good", shape_samples(8)), batch_size=8)[0]
    for row, key in enumerate(batches[0].keys):
        other = good.keys.index(key)
        np.testing.assert_array_equal(batches[0].pixels_BHWC[row], good.pixels_BHWC[other])
        np.testing.assert_array_equal(batches[0].tokens_BL[row], good.tokens_BL[other])


def test_drops_belong_to_the_batches_taken_not_to_those_built_ahead(tmp_path):
    samples = [sample if i % 4 else damaged(sample) for i, sample in enumerate(shape_samples(24))]
    counts = []
    with open_stream(write_shards(tmp_path, samples), batch_size=8, num_threads=3) as stream:
        taken = set()
        for batch in islice(stream, 3):
            taken |= {dropped.source for dropped in batch.dropped}
            assert stream.dropped.keys() == taken
            counts.append(len(taken))
    assert 0 < counts[0] < counts[2] == 6


def test_rows_stay_with_their_samples_when_others_are_left_out(stored, tmp_path):
    with ShardReader(stored[0]) as reader:
        block = bytes(reader.block(BLOCK_NAME))
        samples = list(reader)
    config = {"batch_size": 20, "replay": True, "synthetic": "rule", "seed": 4}
    (whole,) = take(1, stored[:1], **config)
    path = tmp_path / "train" / "000000.tar"
    partial = [damaged(sample) if i % 3 == 0 else sample for i, sample in enumerate(samples)]
    write_shard(path, partial, blocks={BLOCK_NAME: block})
    (batch,) = take(1, [path], **config)
    assert len(batch.keys) == 13
    rows = [whole.keys.index(key) for key in batch.keys]
    for name, found in batch.stored.items():
        np.testing.assert_array_equal(found.image_BD, whole.stored[name].image_BD[rows])
        np.testing.assert_array_equal(found.text_BD, whole.stored[name].text_BD[rows])
        np.testing.assert_array_equal(found.synthetic_BD, whole.stored[name].synthetic_BD[rows])


def test_a_batch_of_nothing_but_damage_is_an_error(tmp_path):
    shards = write_shards(tmp_path, [damaged(sample) for sample in shape_samples(4)])
    with pytest.raises(
        ValueError, match=r"none of the 4 samples .*train/000000\.tar: sample000\d: .*damaged"
    ):
        take(1, shards, batch_size=4)


@pytest.mark.parametrize("synthetic", [None, "rule"])
def test_replayed_pixels_and_rows_are_those_of_the_stored_view_and_caption(stored, teachers, synthetic):
    from pocketclip.teachers import TeacherSpec, build_teacher

    readers = [ShardReader(path) for path in stored]
    place = {key: (reader, row) for reader in readers for row, key in enumerate(reader.keys)}
    models = {
        name: build_teacher(TeacherSpec(name=name, source=str(path))) for name, path in teachers.items()
    }
    assert len({model.image_px for model in models.values()}) == 2
    for batch in take(1, stored, replay=True, synthetic=synthetic, batch_size=10, seed=5):
        assert batch.stored.keys() == models.keys()
        for i, key in enumerate(batch.keys):
            reader, row = place[key]
            block = Reinforcement(reader.block(BLOCK_NAME), name=key)
            sample, spec = reader[row], block.header.augment
            image = decode(sample.image, name=key)
            views = [unpack(params_P) for params_P in block.augment_params_NAP[row]]
            replayed = [np.asarray(apply(image, view, size=PX, spec=spec)) for view in views]
            number = next(n for n, pixels in enumerate(replayed) if (pixels == batch.pixels_BHWC[i]).all())
            texts = TOKENIZER(sample.captions)
            (caption,) = (n for n, tokens_L in enumerate(texts) if (tokens_L == batch.tokens_BL[i]).all())
            for name, model in models.items():
                pixels_HWC = np.asarray(apply(image, views[number], size=model.image_px, spec=spec))
                alone = model.encode_image(pixels_HWC[None])[0]
                rows = batch.stored[name]
                np.testing.assert_allclose(rows.image_BD[i], alone, atol=2e-6)
                text = model.encode_text([sample.captions[caption]])[0]
                np.testing.assert_allclose(rows.text_BD[i], text, atol=2e-6)
                if synthetic is None:
                    assert rows.synthetic_BD is None
                else:
                    text = model.encode_text(sample.synthetic["rule"])[0]
                    np.testing.assert_allclose(rows.synthetic_BD[i], text, atol=2e-6)
    for name in models:  # the tolerance tells samples apart
        assert distances(batch.stored[name].image_BD).min() > 1e-4
        assert distances(batch.stored[name].text_BD).min() > 1e-4


def test_further_sizes_show_the_same_views_and_captions_without_changing_the_batch(plain):
    config = StreamConfig(batch_size=6, image_px=PX, synthetic="rule", seed=3)
    with Stream(plain, config=config, tokenizer=TOKENIZER, extra_px=(40, 17)) as stream:
        batch = next(iter(stream))
    (alone,) = take(1, plain, batch_size=6, synthetic="rule", seed=3)
    assert fingerprint(batch) == fingerprint(alone)
    for px, pixels_BHWC in batch.extra_BHWC.items():
        (other,) = take(1, plain, batch_size=6, image_px=px, synthetic="rule", seed=3)
        np.testing.assert_array_equal(pixels_BHWC, other.pixels_BHWC)
    assert set(batch.extra_BHWC) == {17, 40}
    np.testing.assert_array_equal(TOKENIZER(list(batch.captions)), batch.tokens_BL)
    np.testing.assert_array_equal(TOKENIZER(list(batch.synthetic_captions)), batch.synthetic_BL)
    part = batch.rows(1, 3)
    assert part.captions == batch.captions[1:3]
    assert part.synthetic_captions == batch.synthetic_captions[1:3]
    np.testing.assert_array_equal(part.extra_BHWC[17], batch.extra_BHWC[17][1:3])


def distances(rows_BD):
    apart_BB = np.abs(rows_BD[:, None] - rows_BD[None]).max(-1)
    return apart_BB[~np.eye(len(rows_BD), dtype=bool)]


def with_captioners(num):
    return [
        replace(
            sample,
            synthetic={"coca-b": (f"b one {i}", f"b two {i}"), "coca-a": (f"a {i}",), "vlm": (f"v {i}",)},
        )
        for i, sample in enumerate(shape_samples(num))
    ]


@pytest.mark.parametrize(
    ("pattern", "admitted"),
    [
        ("^coca", {"a", "b one", "b two"}),
        ("coca-b", {"b one", "b two"}),
        ("vlm$", {"v"}),
        ("a|v", {"a", "b one", "b two", "v"}),
        ("", {"a", "b one", "b two", "v"}),
    ],
)
def test_a_pattern_chooses_among_captioners(tmp_path, pattern, admitted):
    shards = write_shards(tmp_path, with_captioners(6))
    kinds = ("a", "b one", "b two", "v")
    kind_of = {TOKENIZER(f"{kind} {i}").tobytes(): (kind, i) for kind in kinds for i in range(6)}
    seen = set()
    for batch in take(12, shards, batch_size=6, synthetic=pattern):
        for key, tokens_L in zip(batch.keys, batch.synthetic_BL, strict=True):
            kind, number = kind_of[tokens_L.tobytes()]
            assert key == f"sample{number:04d}"
            seen.add(kind)
    assert seen == admitted
    assert take(1, shards, batch_size=6)[0].synthetic_BL is None


def test_captions_mixed_by_a_share_are_one_text_a_sample_with_its_own_rows(stored, teachers):
    from pocketclip.teachers import TeacherSpec, build_teacher

    whole = {"replay": True, "synthetic": "rule", "batch_size": 12}
    both = take(8, stored, **whole)
    mixed = take(8, stored, **whole, synthetic_share=0.3)
    num_synthetic = 0
    for one, other in zip(both, mixed, strict=True):
        assert other.synthetic_BL is None
        assert one.keys == other.keys
        np.testing.assert_array_equal(one.pixels_BHWC, other.pixels_BHWC)  # nothing else is drawn otherwise
        from_synthetic = (other.tokens_BL == one.synthetic_BL).all(axis=1)
        num_synthetic += from_synthetic.sum()
        expected_BL = np.where(from_synthetic[:, None], one.synthetic_BL, one.tokens_BL)
        np.testing.assert_array_equal(other.tokens_BL, expected_BL)
        for name, rows in other.stored.items():
            texts = np.where(from_synthetic[:, None], one.stored[name].synthetic_BD, one.stored[name].text_BD)
            np.testing.assert_array_equal(rows.text_BD, texts)
            assert rows.synthetic_BD is None
    assert 0.15 < num_synthetic / 96 < 0.45  # three standard deviations
    name, path = next(iter(teachers.items()))
    teacher = build_teacher(TeacherSpec(name=name, source=str(path)))
    alone = teacher.encode_text(mixed[0].captions)
    np.testing.assert_allclose(mixed[0].stored[name].text_BD, alone, atol=2e-6)


def test_samples_without_the_captioner_are_dropped_and_named(tmp_path):
    samples = with_captioners(4)
    samples[2] = replace(samples[2], synthetic={})
    with open_stream(write_shards(tmp_path, samples), batch_size=4, synthetic="vlm") as stream:
        assert len(next(iter(stream)).keys) == 3
    (dropped,) = stream.dropped.values()
    assert dropped.source.endswith("sample0002")
    assert "no synthetic caption of /vlm/" in dropped.reason


def test_a_pattern_that_admits_nothing_is_an_error(plain):
    with pytest.raises(ValueError, match="none of the 16 samples .* no synthetic caption of /gpt/"):
        take(1, plain, synthetic="gpt")


def test_plain_shards_cannot_be_replayed(plain):
    with pytest.raises(ValueError, match=r"000000\.tar is not reinforced: run `pocketclip reinforce` first"):
        open_stream(plain, replay=True)


def test_reinforcements_of_two_configurations_do_not_mix(shapes, stored, teachers, tmp_path):
    from pocketclip.reinforce import ReinforceConfig, reinforce
    from pocketclip.teachers import TeacherSpec

    spec = TeacherSpec(name="vit", source=str(teachers["vit"]))
    reinforce(shapes, tmp_path / "other", config=ReinforceConfig(teachers=(spec,), num_views=1))
    other = split_shards(tmp_path / "other", "train")
    with pytest.raises(
        ValueError, match=r"000001\.tar was reinforced with another configuration .*do not mix"
    ):
        open_stream([stored[0], other[1]], replay=True)


def test_a_block_of_other_samples_is_refused(stored, tmp_path):
    with ShardReader(stored[0]) as reader:
        block = bytes(reader.block(BLOCK_NAME))
        fewer = [reader[row] for row in range(len(reader) - 1)]
    path = tmp_path / "train" / "000000.tar"
    write_shard(path, fewer, blocks={BLOCK_NAME: block})
    with pytest.raises(ValueError, match=r"000000\.tar has 19 samples but embeddings of 20: delete it"):
        open_stream([path], replay=True)


def test_fewer_samples_than_a_batch_are_an_error(plain):
    with pytest.raises(ValueError, match="48 samples are fewer than one batch of 49: .*smaller batch"):
        open_stream(plain, batch_size=49)
    with pytest.raises(ValueError, match="0 samples"):
        open_stream([])


def test_a_position_of_another_stream_is_refused(plain):
    with pytest.raises(ValueError, match="sample 48 of an epoch of 48 does not exist"):
        open_stream(plain, position=Position(0, 48))


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_ranks_share_an_epoch_without_repeating_or_skipping(plain, num_ranks):
    streams = [
        open_stream(plain, batch_size=16 // num_ranks, rank=rank, num_ranks=num_ranks)
        for rank in range(num_ranks)
    ]
    alone = open_stream(plain, batch_size=16 // num_ranks * num_ranks)
    for one, *parts in zip(alone, *streams, strict=False):
        assert one.keys == tuple(key for part in parts for key in part.keys)
        if streams[0].position.epoch:
            break
    assert len({stream.position for stream in streams}) == 1


def test_another_number_of_ranks_goes_on_with_the_rest_of_the_epoch(plain):
    seen: list[str] = []
    pair = [open_stream(plain, batch_size=6, rank=rank, num_ranks=2) for rank in range(2)]
    for batches in zip(*(islice(stream, 2) for stream in pair), strict=True):
        seen += [key for batch in batches for key in batch.keys]
    rest = open_stream(plain, batch_size=8, position=pair[0].position)
    seen += [key for batch in islice(rest, 3) for key in batch.keys]
    assert len(seen) == len(set(seen)) == 48
    assert rest.position == Position(1, 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"image_px": 0}, "image_px"),
        ({"num_threads": 0}, "num_threads"),
        ({"cache_mb": -1}, "cache_mb"),
        ({"synthetic": "coca["}, r"no regular expression: 'coca\['"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        StreamConfig(**{"batch_size": 4, "image_px": PX, **fields})


def test_views_follow_the_specification(plain):
    spec = AugmentSpec(scale=(1.0, 1.0), ratio=(1.0, 1.0), num_ops=0)
    samples = samples_of(plain)
    (batch,) = take(1, plain, augment=spec)
    for key, pixels_HWC in zip(batch.keys, batch.pixels_BHWC, strict=True):
        whole = decode(samples[key].image, name=key).resize((PX, PX), 3)
        np.testing.assert_array_equal(pixels_HWC, np.asarray(whole))


def test_batches_of_any_folder_are_the_same(plain, tmp_path: Path):
    copies = []
    for path in plain:
        copy = tmp_path / "elsewhere" / path.name
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
        copies.append(copy)
    assert fingerprints(2, copies) == fingerprints(2, plain)
