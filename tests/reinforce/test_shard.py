"""A reinforced shard: every row is the embedding of its own sample, and the same input gives the same bytes."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import shape_samples
from tests.reinforce.rows import SPEC, check_rows
from tests.teachers.plain_teachers import POISON, PlainTeacher

from pocketclip.data.augment import apply, unpack
from pocketclip.data.foreign.candidate import Candidate
from pocketclip.data.index import Dropped
from pocketclip.data.picture import decode
from pocketclip.data.publish import sha256_file
from pocketclip.data.reinforcement import BLOCK_NAME, Reinforcement
from pocketclip.data.shard import ShardReader
from pocketclip.reinforce import OpenUnit, ShardRequest, reinforce_shard
from pocketclip.teachers import EncodeError


def request(**fields):
    fields = {
        "num_views": 3,
        "augment": SPEC,
        "codec": "fp32",
        "seed": 0,
        "batch_size": 8,
        "config_digest": "config",
        **fields,
    }
    return ShardRequest(**fields)


def samples_with_damage(num, damaged):
    """Samples of one to three captions, of different sizes of picture; those at `damaged` are cut."""
    made = []
    for i, sample in enumerate(shape_samples(num)):
        captions = sample.captions[: 1 + i % 2]
        synthetic = sample.synthetic if i % 3 else {"b": (f"second {i}",), "a": (f"first {i}",)}
        image = sample.image[:60] if i in damaged else sample.image
        made.append(replace(sample, captions=captions, synthetic=synthetic, image=image))
    return made


def opened(items):
    return OpenUnit(items=iter(items), sha256=lambda: "input")


def reinforced(folder, items, *, teachers, captioners=(), **fields):
    """A shard of these samples, candidates and drops, and the facts."""
    path = folder / "out" / "000000.tar"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        facts = reinforce_shard(
            opened(items),
            file,
            name="train/000000.tar",
            teachers=teachers,
            captioners=captioners,
            request=request(**fields),
        )
    return path, facts


def reasons(facts):
    return {drop.source: drop.reason for drop in facts.dropped}


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 9),
    st.sets(st.integers(0, 8)),
    st.sampled_from([1, 2, 4, 7, 256]),
    st.integers(1, 5),
)
def test_every_row_is_its_own_samples_whatever_is_dropped_and_however_it_is_batched(
    tmp_path_factory, num, damaged, batch_size, num_views
):
    folder = tmp_path_factory.mktemp("shard")
    samples = samples_with_damage(num, damaged)
    teachers = [PlainTeacher("small", image_px=9), PlainTeacher("larger", image_px=12)]
    path, facts = reinforced(folder, samples, teachers=teachers, batch_size=batch_size, num_views=num_views)
    lost = {sample.key for i, sample in enumerate(samples) if i in damaged}
    assert reasons(facts).keys() == lost
    assert facts.num_samples == num - len(lost)
    if len(lost) == num:
        assert (facts.sha256, facts.num_bytes, path.stat().st_size) == ("", 0, 0)
        return
    assert all(max(teacher.batches) <= batch_size for teacher in teachers)
    assert check_rows(path, samples, teachers=teachers) == [s.key for s in samples if s.key not in lost]
    assert (facts.sha256, facts.num_bytes) == (sha256_file(path), path.stat().st_size)
    assert facts.num_texts == sum(len(s.texts()) for s in samples if s.key not in lost)


@pytest.mark.parametrize("batch_size", [4, 7, 256])
def test_real_teachers_rows_are_those_of_the_sample_alone(tmp_path, teachers, batch_size):
    from pocketclip.teachers import TeacherSpec, build_teacher

    models = [build_teacher(TeacherSpec(name=name, source=str(path))) for name, path in teachers.items()]
    samples = samples_with_damage(12, {0, 5, 6})
    path, facts = reinforced(tmp_path, samples, teachers=models, batch_size=batch_size)
    assert len(check_rows(path, samples, teachers=models, atol=3e-6)) == 9
    assert all("damaged or cut off" in reason for reason in reasons(facts).values())
    with ShardReader(path) as reader:  # the tolerance tells samples and views apart
        block = Reinforcement(reader.block(BLOCK_NAME), name="shard")
        for name in teachers:
            rows = block.image_rows(name, np.repeat(np.arange(9), 3), np.tile(np.arange(3), 9))
            apart = np.abs(rows[:, None] - rows[None]).max(-1)[~np.eye(27, dtype=bool)]
            assert np.quantile(apart, 0.05) > 3e-5
        del block


def test_teachers_of_different_sizes_see_one_view_each_at_its_own_size(tmp_path, small_and_large):
    samples = shape_samples(5)
    path, _ = reinforced(tmp_path, samples, teachers=small_and_large, num_views=2)
    seen = {teacher.image_px: list(teacher.seen) for teacher in small_and_large}
    with ShardReader(path) as reader:
        params_NAP = Reinforcement(reader.block(BLOCK_NAME), name="shard").augment_params_NAP.copy()
    for row, sample in enumerate(samples):
        image = decode(sample.image, name=sample.key)
        for number in range(2):
            view = unpack(params_NAP[row, number])
            for size, pixels in seen.items():
                expected = np.asarray(apply(image, view, size=size, spec=SPEC))
                np.testing.assert_array_equal(pixels[row * 2 + number], expected)


def test_the_same_input_gives_the_same_bytes_and_another_seed_others(tmp_path):
    samples = samples_with_damage(7, {3})

    def made(name, **fields):
        path, facts = reinforced(
            tmp_path / name, samples, teachers=[PlainTeacher("small", image_px=9)], **fields
        )
        return path.read_bytes(), replace(facts, seconds={})

    (first, facts), (second, again) = made("one"), made("two", num_loaders=5)
    assert first == second
    assert facts == again
    assert made("three", seed=1)[0] != first


def test_the_views_of_a_sample_do_not_depend_on_its_neighbours(tmp_path):
    def views(name, samples):
        path, _ = reinforced(tmp_path / name, samples, teachers=[PlainTeacher("t", image_px=9)])
        with ShardReader(path) as reader:
            params_NAP = Reinforcement(reader.block(BLOCK_NAME), name="shard").augment_params_NAP
            return {key: params_NAP[row].tobytes() for row, key in enumerate(reader.keys)}

    samples = shape_samples(6)
    whole = views("whole", samples)
    assert views("part", samples[4:1:-1]) == {sample.key: whole[sample.key] for sample in samples[2:5]}
    assert len(set(whole.values())) == 6


def test_the_header_says_what_was_done(tmp_path, small_and_large):
    samples = samples_with_damage(4, {2})
    path, _ = reinforced(tmp_path, samples, teachers=small_and_large, codec="int8")
    with ShardReader(path) as reader:
        header = Reinforcement(reader.block(BLOCK_NAME), name="shard").header
    assert (header.config_digest, header.input_sha256) == ("config", "input")
    assert (header.augment, header.codec) == (SPEC, "int8")
    assert header.teachers == tuple(teacher.record for teacher in small_and_large)
    assert header.dropped.keys() == {"sample0002"}
    assert header.errors["image/small"].cosine_min > 0.99


def test_progress_counts_every_item_once():
    counted = []
    items = [Dropped(source="row 7", reason="no caption"), *samples_with_damage(9, {1, 8})]
    reinforce_shard(
        opened(items),
        io.BytesIO(),
        name="train/000000.tar",
        teachers=[PlainTeacher("t", image_px=9)],
        request=request(batch_size=4),
        progress=counted.append,
    )
    assert sum(counted) == 10
    assert len(counted) > 1


def test_batches_are_full_across_samples_and_texts_apart():
    teacher = PlainTeacher("t", image_px=9)
    reinforce_shard(
        opened(shape_samples(16)),  # 3 views and 3 texts each
        io.BytesIO(),
        name="train/000000.tar",
        teachers=[teacher],
        request=request(batch_size=8),
    )
    assert teacher.batches == [8] * 12  # two groups of 8 samples: 24 views, 24 texts


def test_a_long_unit_is_never_whole_in_memory():
    """Of what is offered only so much is taken before what came first is written."""
    written = io.BytesIO()
    taken = []

    def items():
        for i, sample in enumerate(shape_samples(300)):
            taken.append((i, written.tell()))
            yield sample

    teacher = PlainTeacher("t", image_px=9)
    reinforce_shard(
        opened(items()), written, name="x", teachers=[teacher], request=request(batch_size=8, num_views=2)
    )
    size = written.tell() / 300
    behind = [i - at / size for i, at in taken]
    assert max(behind) < 80


# Samples that a teacher or a reader refuses


def test_a_text_that_breaks_a_tokenizer_costs_its_sample_alone(tmp_path):
    samples = samples_with_damage(20, {4})
    for i in (2, 9, 19):
        samples[i] = replace(samples[i], captions=(*samples[i].captions, POISON))
    teachers = [PlainTeacher("one", image_px=9), PlainTeacher("another", image_px=12)]
    path, facts = reinforced(tmp_path, samples, teachers=teachers, batch_size=8)
    lost = {samples[i].key for i in (2, 4, 9, 19)}
    assert reasons(facts).keys() == lost
    assert reasons(facts)["sample0009"] == "teacher one: no such character"
    kept = [sample for sample in samples if sample.key not in lost]
    assert check_rows(path, kept, teachers=teachers) == [sample.key for sample in kept]
    with ShardReader(path) as reader:
        header = Reinforcement(reader.block(BLOCK_NAME), name="shard").header
    assert header.dropped == reasons(facts)


class Picky(PlainTeacher):
    """Refuses some pictures as a teacher should: it names their rows."""

    def encode_image(self, pixels_BHWC):
        bad = {row: "too dark" for row in range(len(pixels_BHWC)) if pixels_BHWC[row].mean() < 60}
        if bad:
            raise EncodeError(self.record.name, bad)
        return super().encode_image(pixels_BHWC)


def test_pictures_that_a_teacher_refuses_cost_their_samples_alone(tmp_path, encode):
    samples = [
        replace(sample, image=encode(colour="black" if i in (0, 5, 6) else "white"))
        for i, sample in enumerate(shape_samples(10))
    ]
    teachers = [PlainTeacher("any", image_px=9), Picky("picky", image_px=12)]
    path, facts = reinforced(
        tmp_path, samples, teachers=teachers, batch_size=4, augment=replace(SPEC, num_ops=0)
    )
    assert reasons(facts) == {f"sample000{i}": "teacher picky: too dark" for i in (0, 5, 6)}
    kept = [sample for i, sample in enumerate(samples) if i not in (0, 5, 6)]
    check_rows(path, kept, teachers=teachers, spec=replace(SPEC, num_ops=0))


def test_the_second_of_two_equal_keys_is_dropped(tmp_path):
    one, two, three = shape_samples(3)
    path, facts = reinforced(
        tmp_path, [one, replace(two, key=one.key), three, one], teachers=[PlainTeacher("t", image_px=9)]
    )
    assert [drop.source for drop in facts.dropped] == [one.key, one.key]
    assert all("already has the key sample0000" in drop.reason for drop in facts.dropped)
    with ShardReader(path) as reader:
        assert [reader[0], reader[1]] == [one, three]
        header = Reinforcement(reader.block(BLOCK_NAME), name="shard").header
    assert list(header.dropped) == [one.key, f"{one.key} (2)"]


def test_candidates_are_checked_and_drops_pass_through(tmp_path, encode):
    offered = {
        "good.webp": encode("WEBP"),
        "good.gif": encode("GIF"),
        "bad.jpg": encode("JPEG")[:200],
        "text.png": b"no picture",
    }
    items = [
        Candidate(
            source=f"a.tar: {name}", split="train", key=name.replace(".", "-"), image=data, captions=("a",)
        )
        for name, data in offered.items()
    ]
    lost = Dropped(source="a.tar: lost", reason="no caption")
    teacher = PlainTeacher("t", image_px=9)
    path, facts = reinforced(tmp_path, [lost, *items], teachers=[teacher])
    assert list(reasons(facts)) == ["a.tar: lost", "a.tar: bad.jpg", "a.tar: text.png"]
    with ShardReader(path) as reader:
        samples = [reader[row] for row in range(len(reader))]
    assert [(sample.key, sample.extension) for sample in samples] == [
        ("good-webp", "webp"),
        ("good-gif", "png"),
    ]
    assert check_rows(path, samples, teachers=[teacher]) == ["good-webp", "good-gif"]


class Writer:
    """A captioner that writes what it sees; nothing for dark pictures."""

    name = "writer"
    digest = "writer"

    def __init__(self):
        self.batches = []

    def caption(self, images, keys):
        self.batches.append(len(images))
        return [
            (f"{key} of {image.width} px", "a picture") if np.asarray(image).mean() > 60 else ()
            for image, key in zip(images, keys, strict=True)
        ]

    def describe(self):
        return {}


def test_captioners_write_before_teachers_read(tmp_path, encode):
    samples = [
        replace(sample, image=encode(colour="black" if i == 3 else "white", size=20 + i))
        for i, sample in enumerate(shape_samples(40))
    ]
    teacher, writer = PlainTeacher("t", image_px=9), Writer()
    path, facts = reinforced(tmp_path, samples, teachers=[teacher], captioners=[writer], batch_size=50)
    assert writer.batches == [32, 8]
    expected = [
        replace(
            sample,
            synthetic={**sample.synthetic, "writer": (f"{sample.key} of {20 + i} px", "a picture")}
            if i != 3
            else sample.synthetic,
        )
        for i, sample in enumerate(samples)
    ]
    check_rows(path, expected, teachers=[teacher])
    assert facts.num_texts == 40 * 3 + 39 * 2


def test_a_captioner_does_not_replace_captions(tmp_path):
    samples = [replace(shape_samples(1)[0], synthetic={"writer": ("mine",)})]
    with pytest.raises(
        ValueError, match="sample0000 has captions of writer already: give the captioner another"
    ):
        reinforced(tmp_path, samples, teachers=[PlainTeacher("t", image_px=9)], captioners=[Writer()])


@pytest.mark.filterwarnings("ignore")  # of the other library
def test_any_webdataset_reader_sees_the_pictures_and_captions(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    samples = samples_with_damage(6, {2})
    path, _ = reinforced(tmp_path, samples, teachers=[PlainTeacher("t", image_px=9)])
    rows = list(
        webdataset.WebDataset(str(path), shardshuffle=False)
        .decode("pil")
        .to_tuple("__key__", "png", "txt", "json")
    )
    expected = [sample for i, sample in enumerate(samples) if i != 2]
    assert [key for key, _, _, _ in rows] == [sample.key for sample in expected]
    for (_, image, caption, details), sample in zip(rows, expected, strict=True):
        assert image.size == decode(sample.image, name="x").size
        assert caption == sample.captions[0]
        assert details["captions"] == list(sample.captions)


def test_any_tar_reader_sees_members_in_order(tmp_path):
    path, _ = reinforced(tmp_path, shape_samples(2), teachers=[PlainTeacher("t", image_px=9)])
    with tarfile.open(path) as tar:
        names = tar.getnames()
        details = json.load(tar.extractfile("sample0001.json"))
    assert names == [f"sample000{i}.{end}" for i in range(2) for end in ("png", "txt", "json")] + [
        "__reinforcement__"
    ]
    assert details["synthetic"]["rule"]


def test_a_teacher_that_has_diverged_is_named(tmp_path):
    class Diverged(PlainTeacher):
        def encode_image(self, pixels_BHWC):
            return super().encode_image(pixels_BHWC) * np.float32(np.nan)

    with pytest.raises(
        ValueError, match=r"no sample of train/000000\.tar has an embedding: teacher bad: gives .* not finite"
    ):
        reinforced(tmp_path, shape_samples(3), teachers=[Diverged("bad", image_px=9)])


def test_a_teacher_that_breaks_down_is_no_matter_of_samples(tmp_path):
    class Broken(PlainTeacher):
        def encode_text(self, texts):
            if len(texts) > 1:
                raise ValueError("out of order")
            return super().encode_text(texts)

    with pytest.raises(ValueError, match="out of order"):
        reinforced(tmp_path, shape_samples(3), teachers=[Broken("t", image_px=9)])

    class Wide(PlainTeacher):
        def encode_text(self, texts):
            return np.ones((len(texts), 7), np.float32)

    with pytest.raises(ValueError, match=r"teacher t gives embeddings of shape \(8, 7\) .* width is 6"):
        reinforced(tmp_path, shape_samples(3), teachers=[Wide("t", image_px=9)])
