"""Teachers beside the student: the offline kind's loss, on the offline kind's views, without stored embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pocketclip.checkpoint import load
from pocketclip.data.augment import AugmentSpec
from pocketclip.data.index import split_shards
from pocketclip.data.stream import Stream, StreamConfig
from pocketclip.data.tokenize import Tokenizer, TokenizerConfig
from pocketclip.fit import LoopConfig, read_journal
from pocketclip.recipes.run import taught_online, train_recipe
from pocketclip.reinforce import ReinforceConfig, reinforce
from pocketclip.teachers import TeacherSpec, build_teacher
from pocketclip.train import ObjectiveConfig, OnlineTeacher, TrainConfig, train
from pocketclip.train.online import teach

torch.set_num_threads(1)
# Nothing to draw: the one stored view is the view that is drawn.
STILL = AugmentSpec(scale=(1.0, 1.0), ratio=(1.0, 1.0), num_ops=0, rand_augment=0.0)


@pytest.fixture(scope="module")
def specs(teachers):
    return tuple(
        TeacherSpec(name=name, source=str(path), logit_scale=scale)
        for (name, path), scale in zip(teachers.items(), (20.0, None), strict=True)
    )


def config(**fields):
    return TrainConfig(
        name="test",
        variant="pocketclip_tiny",
        stream=StreamConfig(
            batch_size=12, replay=True, synthetic="rule", augment=STILL, main_caption_only=True
        ),
        objective=ObjectiveConfig(distill_weight=0.8, synthetic_weight=1.0),
        loop=LoopConfig(num_steps=4, log_every=1),
        **fields,
    )


def losses(out):
    return [record["loss"] for record in read_journal(out / "metrics.jsonl")]


def test_online_training_is_offline_training_where_the_views_are_the_same(specs, shapes, tmp_path):
    stored = tmp_path / "reinforced"
    reinforce(
        shapes, stored, config=ReinforceConfig(teachers=specs, num_views=1, augment=STILL, codec="fp32")
    )
    train(config(), data=stored, out=tmp_path / "offline")
    run = taught_online(config(), specs)
    assert not run.stream.replay
    online = train_recipe(run, data=shapes, out=tmp_path / "online", validation=None)
    assert losses(tmp_path / "online") == pytest.approx(losses(tmp_path / "offline"), rel=1e-5)
    record = load(online).config.run
    assert set(record["online_digests"]) == {"conv", "vit"}
    assert [one["source"] for one in record["config"]["online"]] == ["conv.safetensors", "vit.safetensors"]


def test_every_teacher_sees_the_batchs_own_views_at_its_own_size(specs, shapes):
    built = [build_teacher(spec) for spec in specs]
    teachers = [as_online(teacher) for teacher in built]
    assert {teacher.image_px for teacher in built} == {48, 64}
    stream = Stream(
        split_shards(shapes, "train"),
        config=StreamConfig(batch_size=5, image_px=48, synthetic="rule"),
        tokenizer=Tokenizer(TokenizerConfig(vocab_size=600)),
        extra_px=(48, 64),
    )
    with stream:
        batch = next(teach(iter(stream), teachers))
    np.testing.assert_array_equal(batch.extra_BHWC[48], batch.pixels_BHWC)
    for teacher in built:
        rows = batch.stored[teacher.record.name]
        views_BHWC = batch.extra_BHWC[teacher.image_px]
        np.testing.assert_array_equal(rows.image_BD, teacher.encode_image(views_BHWC))
        np.testing.assert_array_equal(rows.text_BD, teacher.encode_text(batch.captions))
        np.testing.assert_array_equal(rows.synthetic_BD, teacher.encode_text(batch.synthetic_captions))
        assert rows.logit_scale == teacher.record.logit_scale


def as_online(teacher):
    return OnlineTeacher(
        name=teacher.record.name,
        image_px=teacher.image_px,
        logit_scale=teacher.record.logit_scale,
        digest=teacher.record.digest,
        encode_image=teacher.encode_image,
        encode_text=teacher.encode_text,
    )


def test_teachers_that_are_not_there_are_told(specs, shapes, tmp_path):
    with pytest.raises(ValueError, match=r"the teachers must be those of config\.online"):
        train(taught_online(config(), specs), data=shapes, out=tmp_path)
    missing = TeacherSpec(name="a", source=str(tmp_path / "none.safetensors"))
    with pytest.raises(FileNotFoundError, match="teacher a: .*none.safetensors does not exist"):
        train_recipe(taught_online(config(), [missing]), data=shapes, out=tmp_path, validation=None)
