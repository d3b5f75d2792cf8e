"""A reinforced shard: every row is the embedding of its own sample, and the same input gives the same bytes."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import shape_samples
from tests.reinforce.conftest import PlainTeacher

from pocketclip.data.augment import AugmentSpec, apply, unpack
from pocketclip.data.picture import decode
from pocketclip.data.publish import PublishError
from pocketclip.data.reinforcement import BLOCK_NAME, Reinforcement
from pocketclip.data.shard import ShardReader, write_shard
from pocketclip.reinforce import ShardRequest, reinforce_shard

SPEC = AugmentSpec(scale=(0.3, 1.0), flip=0.5)


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


def reinforced(folder, samples, *, teachers, **fields):
    write_shard(folder / "in" / "000000.tar", samples)
    out = folder / "out" / "000000.tar"
    entry, dropped = reinforce_shard(
        folder / "in" / "000000.tar", out, teachers=teachers, request=request(**fields)
    )
    return out, entry, dropped


def check_rows(path, samples, *, teachers, spec=SPEC, atol=1e-6):
    """Every row of the shard against its teacher, one picture and one caption at a time."""
    by_key = {sample.key: sample for sample in samples}
    with ShardReader(path) as reader:
        block = Reinforcement(reader.block(BLOCK_NAME), name=path.name)
        assert len(block) == len(reader)
        for row in range(len(reader)):
            sample = reader[row]
            assert sample == by_key[sample.key]
            image = decode(sample.image, name=sample.key)
            views = [unpack(params_P) for params_P in block.augment_params_NAP[row]]
            texts = sample.texts()
            offsets = block.text_offsets
            assert offsets[row + 1] - offsets[row] == len(texts)
            for teacher in teachers:
                name = teacher.record.name
                alone = [
                    teacher.encode_image(
                        np.asarray(apply(image, view, size=teacher.image_px, spec=spec))[None]
                    )
                    for view in views
                ]
                rows = block.image_rows(name, np.full(len(views), row), np.arange(len(views)))
                np.testing.assert_allclose(rows, np.concatenate(alone), atol=atol)
                alone = [teacher.encode_text([text]) for text in texts]
                rows = block.text_rows(name, np.full(len(texts), row), np.arange(len(texts)))
                np.testing.assert_allclose(rows, np.concatenate(alone), atol=atol)
        del block, rows
        return list(reader.keys)


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
    path, entry, dropped = reinforced(
        folder, samples, teachers=teachers, batch_size=batch_size, num_views=num_views
    )
    lost = {sample.key for i, sample in enumerate(samples) if i in damaged}
    assert dropped.keys() == lost
    if len(lost) == num:
        assert entry is None
        assert not path.exists()
        return
    assert all(max(teacher.batches) <= batch_size for teacher in teachers)
    assert check_rows(path, samples, teachers=teachers) == [s.key for s in samples if s.key not in lost]
    assert (entry.num_samples, entry.file) == (num - len(lost), "out/000000.tar")


@pytest.mark.parametrize("batch_size", [4, 7, 256])
def test_real_teachers_rows_are_those_of_the_sample_alone(tmp_path, teachers, batch_size):
    from pocketclip.reinforce import TeacherSpec, build_teacher

    models = [build_teacher(TeacherSpec(name=name, source=str(path))) for name, path in teachers.items()]
    samples = samples_with_damage(12, {0, 5, 6})
    path, _, dropped = reinforced(tmp_path, samples, teachers=models, batch_size=batch_size)
    assert len(check_rows(path, samples, teachers=models, atol=3e-6)) == 9
    assert all("damaged or cut off" in reason for reason in dropped.values())
    with ShardReader(path) as reader:  # the tolerance tells samples and views apart
        block = Reinforcement(reader.block(BLOCK_NAME), name="shard")
        for name in teachers:
            rows = block.image_rows(name, np.repeat(np.arange(9), 3), np.tile(np.arange(3), 9))
            apart = np.abs(rows[:, None] - rows[None]).max(-1)[~np.eye(27, dtype=bool)]
            assert np.quantile(apart, 0.05) > 3e-5
        del block


def test_teachers_of_different_sizes_see_one_view_each_at_its_own_size(tmp_path, small_and_large):
    samples = shape_samples(5)
    path, _, _ = reinforced(tmp_path, samples, teachers=small_and_large, num_views=2)
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
        path, entry, _ = reinforced(
            tmp_path / name, samples, teachers=[PlainTeacher("small", image_px=9)], **fields
        )
        return path.read_bytes(), entry

    (first, entry), (second, again) = made("one"), made("two")
    assert first == second
    assert entry == again
    assert entry.num_bytes == len(first)
    assert made("three", seed=1)[0] != first


def test_the_views_of_a_sample_do_not_depend_on_its_neighbours(tmp_path):
    def views(name, samples):
        path, _, _ = reinforced(tmp_path / name, samples, teachers=[PlainTeacher("t", image_px=9)])
        with ShardReader(path) as reader:
            params_NAP = Reinforcement(reader.block(BLOCK_NAME), name="shard").augment_params_NAP
            return {key: params_NAP[row].tobytes() for row, key in enumerate(reader.keys)}

    samples = shape_samples(6)
    whole = views("whole", samples)
    assert views("part", samples[4:1:-1]) == {sample.key: whole[sample.key] for sample in samples[2:5]}
    assert len(set(whole.values())) == 6


def test_the_header_says_what_was_done(tmp_path, small_and_large):
    samples = samples_with_damage(4, {2})
    path, _, _ = reinforced(tmp_path, samples, teachers=small_and_large, codec="int8")
    with ShardReader(path) as reader:
        header = Reinforcement(reader.block(BLOCK_NAME), name="shard").header
    assert header.config_digest == "config"
    assert (header.augment, header.codec) == (SPEC, "int8")
    assert header.teachers == tuple(teacher.record for teacher in small_and_large)
    assert header.dropped.keys() == {"sample0002"}
    assert header.errors["image/small"].cosine_min > 0.99


def test_progress_counts_every_sample_once(tmp_path):
    write_shard(tmp_path / "in.tar", samples_with_damage(9, {1, 8}))
    counted = []
    reinforce_shard(
        tmp_path / "in.tar",
        tmp_path / "out.tar",
        teachers=[PlainTeacher("t", image_px=9)],
        request=request(batch_size=12),
        progress=counted.append,
    )
    assert sum(counted) == 9
    assert len(counted) > 1


@pytest.mark.filterwarnings("ignore")  # of the other library
def test_any_webdataset_reader_sees_the_pictures_and_captions(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    samples = samples_with_damage(6, {2})
    path, _, _ = reinforced(tmp_path, samples, teachers=[PlainTeacher("t", image_px=9)])
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
    path, _, _ = reinforced(tmp_path, shape_samples(2), teachers=[PlainTeacher("t", image_px=9)])
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

    with pytest.raises(ValueError, match=r"teacher bad gives embeddings that are not finite .*000000\.tar"):
        reinforced(tmp_path, shape_samples(3), teachers=[Diverged("bad", image_px=9)])
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_nothing(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".000000.tar.partial").symlink_to("/dev/full")
    with pytest.raises(PublishError, match=r"disk full while writing .*000000\.tar"):
        reinforced(tmp_path, shape_samples(30), teachers=[PlainTeacher("t", image_px=9)])
    assert list(out.iterdir()) == []
