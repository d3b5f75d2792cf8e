"""Published shards train, and what the student sees of them is what torchvision makes of the recorded parameters."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data.foreign.test_published_views import horizontal_first
from tests.data.test_augment import torchvision_operation
from tests.published_sets import (
    Sample,
    columns,
    draw_picture,
    make_sample,
    rounded,
    write_images,
    write_published,
)

from pocketclip.data.index import split_shards
from pocketclip.data.stream import Stream, StreamConfig
from pocketclip.data.tokenize import Tokenizer, TokenizerConfig
from pocketclip.join import JoinReport, PictureSources, join

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """Pictures of several sizes and kinds, one lying on its side and one see-through."""
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = draw_picture(90, width=120, height=80, exif=exif)
    layers = np.random.default_rng(0).integers(0, 256, (80, 60, 4), dtype=np.uint8)
    Image.fromarray(layers, "RGBA").save(file := io.BytesIO(), "PNG")
    sizes = [(96, 72), (240, 64), (64, 240), (300, 280)]
    made = [
        make_sample(number, image=draw_picture(number, width=width, height=height))
        for number, (width, height) in enumerate(sizes * 4)
    ]
    return [*made, make_sample(90, image=lying), make_sample(91, image=file.getvalue())]


@pytest.fixture(scope="module", params=["v1-npz", "v1-pth.gz", "v2-npz", "v2-pth.gz"])
def report(request, samples, tmp_path_factory) -> tuple[Path, JoinReport]:
    folder = tmp_path_factory.mktemp("joined")
    generation, storage = request.param.split("-")
    layout = {"generation": generation, "storage": storage, "views_as_text": storage == "npz"}
    write_published(folder / "dr" / "0.tar", samples[:10], **layout)
    write_published(folder / "dr" / "1.tar", samples[10:], **layout)
    write_images(folder / "images.tar", samples)
    sources = PictureSources(images=(str(folder / "images.tar"),))
    return folder / "out", join(str(folder / "dr"), folder / "out", pictures=sources)


@pytest.mark.reference
@pytest.mark.parametrize("side", [224, 256])
def test_batches_replay_to_torchvisions_pixels_with_the_embeddings_of_that_view(report, samples, side):
    pytest.importorskip("torchvision")
    folder, joined = report
    assert joined.num_missing == 0
    by_uid = {sample.uid: sample for sample in samples}
    config = StreamConfig(batch_size=9, image_px=side, replay=True, synthetic="^syn_text")
    tokenizer = Tokenizer(TokenizerConfig(vocab_size=4096, context_length=16))
    num_seen = 0
    with Stream(split_shards(folder, "train"), config=config, tokenizer=tokenizer) as stream:
        for _, batch in zip(range(4), stream, strict=False):
            for row, key in enumerate(batch.keys):
                sample = by_uid[key]
                image = Image.open(io.BytesIO(sample.image)).convert("RGBA").convert("RGB")
                views = []
                for crop, drawn in json.loads(json.dumps(sample.param_aug)):
                    view = horizontal_first(image, crop, side)
                    for number, value in drawn:
                        view = torchvision_operation(view, number, value)
                    views.append(np.asarray(view))
                matching = [
                    view for view, pixels in enumerate(views) if (pixels == batch.pixels_BHWC[row]).all()
                ]
                assert matching, key
                for stored, block in zip(batch.stored.values(), columns(sample.image_emb), strict=True):
                    assert any((stored.image_BD[row] == rounded(block)[view]).all() for view in matching)
                num_seen += 1
    assert num_seen == 36


@pytest.mark.slow
def test_the_debug_twin_of_a_reinforced_recipe_trains_on_it(report, tmp_path):
    from pocketclip.recipes.registry import recipe
    from pocketclip.recipes.run import train_recipe

    folder, _ = report
    config = recipe("emoji.debug_student_reinforced")
    config = replace(config, stream=replace(config.stream, batch_size=6, synthetic="^syn_text"))
    train_recipe(config, data=folder, out=tmp_path / "run", validation=None)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == config.loop.num_steps
    assert np.isfinite(losses).all()
