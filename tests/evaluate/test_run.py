from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tests.evaluate.conftest import COLOURS, ColourReader, pack_splits, sample

from pocketclip.checkpoint.store import create, save
from pocketclip.data.preprocess import Preprocess
from pocketclip.evaluate import EvaluateConfig, ModelFacts, Report, evaluate

STYLE = EvaluateConfig(splits=("test-style",), resamples=50, nway=3)


@pytest.fixture
def tiny():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return create("pocketclip_tiny")


def test_a_model_that_knows_scores_all_and_one_that_errs_what_it_got_right(packed):
    report = evaluate({"knows": ColourReader(), "errs": ColourReader(wrong=2)}, packed, config=STYLE)
    assert report.result("knows", "test-style").scores["mean_recall@1"].value == 1
    errs = report.result("errs", "test-style").scores
    assert errs["image_to_text_recall@1"].value == pytest.approx(5 / 7)
    # Both cards of two colours went to the next colour; its caption now finds four cards that tie.
    assert errs["text_to_image_recall@1"].value == pytest.approx(4 / 7)
    facts = report.splits["test-style"]
    assert (len(facts.image_keys), len(facts.texts)) == (14, 7)
    assert facts.relevant[3] == facts.relevant[10] == (3,)


def test_every_picture_is_decoded_once_for_all_models(packed, monkeypatch):
    from pocketclip.evaluate import feed as module

    decoded = []
    monkeypatch.setattr(
        module,
        "decode",
        lambda data, *, name, real=module.decode: decoded.append(name) or real(data, name=name),
    )
    evaluate({"a": ColourReader(), "b": ColourReader()}, packed, config=STYLE)
    assert len(decoded) == len(set(decoded)) == 14


def test_models_of_one_size_share_resized_pixels(packed, monkeypatch):
    """Pixels are made once for models that differ in mean and standard deviation only."""
    made = []

    class Counting(Preprocess):
        def pixels(self, image):
            made.append(self.size)
            return super().pixels(image)

    class Reader(ColourReader):
        facts, logit_scale, digest = ModelFacts(source="here"), 100.0, "0"

        def __init__(self, *, size, mean):
            super().__init__()
            self.preprocess = Counting(size=size, mean=mean, std=(1.0, 1.0, 1.0), interpolation="bilinear")

        def embed_pixels(self, pixels_BHWC):
            return self.embed_images([Image.fromarray(pixels) for pixels in pixels_BHWC])

    dark, light = (0.0, 0.0, 0.0), (0.5, 0.5, 0.5)
    models = {
        "a": Reader(size=8, mean=dark),
        "b": Reader(size=8, mean=light),
        "c": Reader(size=4, mean=dark),
    }
    report = evaluate(models, packed, config=STYLE)
    assert sorted(made) == [4] * 14 + [8] * 14
    assert all(report.result(name, "test-style").scores["mean_recall@1"].value == 1 for name in models)


def test_checkpoints_from_file_and_memory_agree_whatever_the_batch(packed, tmp_path, tiny):
    path = tmp_path / "tiny.safetensors"
    save(path, tiny.model, config=tiny.config, tokenizer=tiny.tokenizer)
    reports = [
        evaluate({"m": model}, packed, config=EvaluateConfig(splits=("test-style",), batch_size=size))
        for model, size in [(path, 64), (tiny, 64), (tiny, 5)]
    ]
    first, *others = [report.result("m", "test-style") for report in reports]
    assert all(other.scores == first.scores for other in others)
    facts = reports[0].models["m"]
    assert facts.source == str(path)
    assert facts.image_px == tiny.config.preprocess.size
    assert facts.image_parameters == sum(p.numel() for p in tiny.model.image.parameters())


def test_two_models_are_compared_on_the_same_queries(packed):
    report = evaluate({"knows": ColourReader(), "errs": ColourReader(wrong=3)}, packed, config=STYLE)
    gain = report.compare("knows", "errs", split="test-style")
    assert gain.value == pytest.approx(
        1 - report.result("errs", "test-style").scores["mean_recall@1"].value, abs=1e-9
    )
    assert 0 <= gain.low <= gain.value <= gain.high <= 1
    loss = report.compare("errs", "knows", split="test-style")
    assert loss.value == pytest.approx(-gain.value)
    assert report.compare("knows", "knows", split="test-style", metric="nway_accuracy").high == 0
    with pytest.raises(ValueError, match="models: knows, errs"):
        report.compare("knows", "nobody", split="test-style")
    with pytest.raises(ValueError, match="unknown metric 'accuracy'.*mean_recall@1"):
        report.compare("knows", "errs", split="test-style", metric="accuracy")


def test_a_damaged_picture_is_left_out_counted_and_named(tmp_path):
    good = [sample(0, name) for name in COLOURS]
    bad = sample(9, "red", image=good[0].image[:40])
    folder = pack_splits(tmp_path / "cards", {"test-style": [[*good[:3], bad, *good[3:]]]})
    report = evaluate({"m": ColourReader()}, folder, config=STYLE)
    facts = report.splits["test-style"]
    assert facts.image_keys == tuple(s.key for s in good)
    assert [dropped.source for dropped in facts.skipped] == ["test-style/000000.tar: red-9.png"]
    assert "1 skipped" in report.table()
    assert report.result("m", "test-style").scores["mean_recall@1"].value == 1


def test_prompt_and_batches_reach_the_text_tower(packed):
    class Recording(ColourReader):
        def embed_texts(self, texts):
            self.texts = [*getattr(self, "texts", []), tuple(texts)]
            return super().embed_texts(texts)

    model = Recording()
    config = EvaluateConfig(splits=("validation",), batch_size=4, prompt="a photo of {}.")
    evaluate({"m": model}, packed, config=config)
    assert [len(batch) for batch in model.texts] == [4, 3]
    assert model.texts[0][0] == "a photo of a red card."


def test_json_round_trip(packed, tmp_path):
    report = evaluate({"a": ColourReader(), "b": ColourReader(wrong=1)}, packed, config=STYLE)
    report.write(tmp_path / "report.json")
    again = Report.read(tmp_path / "report.json")
    assert again == report
    assert again.to_json() == report.to_json()
    assert again.compare("b", "a", split="test-style") == report.compare("b", "a", split="test-style")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "not a pocketclip report"),
        ('{"format": "pocketclip-report", "version": 9}', "version 9"),
        ('{"format": "pocketclip-report", "version": 1}', "damaged"),
    ],
)
def test_what_is_not_a_report_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        Report.read(path)
    assert str(path) in str(caught.value)


def test_table_lines_up_and_stacks_where_it_is_narrow(packed):
    config = EvaluateConfig(splits=("validation", "test-style"), resamples=20)
    report = evaluate({"a long name": ColourReader(), "b": ColourReader(wrong=2)}, packed, config=config)
    wide, narrow = report.table(width=300), report.table(width=90)
    assert len([line for line in wide.splitlines() if line.startswith("a long name")]) == 1
    assert len([line for line in narrow.splitlines() if line.startswith("a long name")]) == 2
    assert max(len(line) for line in narrow.splitlines()[:-1]) <= 90
    for text in (wide, narrow):
        rows = [line for line in text.splitlines() if line.startswith(("a long name", "b ", "model"))]
        assert len({len(row) for row in rows}) == 1
        assert "100.0 ±0.0" in text
        assert "20-way" in text


def test_missing_and_empty_splits_and_no_model(packed, tmp_path):
    with pytest.raises(ValueError, match="no split 'test-unseen'; it has validation, test-style"):
        evaluate({"m": ColourReader()}, packed, config=EvaluateConfig(splits=("test-unseen",)))
    empty = pack_splits(tmp_path / "empty", {"test-style": []})
    with pytest.raises(ValueError, match="'test-style' .* is empty"):
        evaluate({"m": ColourReader()}, empty, config=STYLE)
    broken = pack_splits(tmp_path / "broken", {"test-style": [[sample(0, "red", image=b"no picture")]]})
    with pytest.raises(ValueError, match=r"none of the 1 pictures .*red-0\.png"):
        evaluate({"m": ColourReader()}, broken, config=STYLE)
    one = pack_splits(tmp_path / "one", {"test-style": [[sample(0, "red"), sample(1, "red")]]})
    with pytest.raises(ValueError, match="at least 2 distinct captions"):
        evaluate({"m": ColourReader()}, one, config=STYLE)
    with pytest.raises(ValueError, match="no model"):
        evaluate({}, packed, config=STYLE)


def test_what_is_no_model_is_refused(packed, tmp_path):
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"something else")
    with pytest.raises(ValueError, match="other.safetensors"):
        evaluate({"m": other}, packed, config=STYLE)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors"):
        evaluate({"m": tmp_path / "nowhere.safetensors"}, packed, config=STYLE)
    with pytest.raises(ValueError, match="model 'm' is a int"):
        evaluate({"m": 3}, packed, config=STYLE)


def test_a_diverged_model_is_named(packed):
    class Diverged(ColourReader):
        def embed_images(self, images):
            return np.full((len(images), len(COLOURS)), np.nan, dtype=np.float32)

    with pytest.raises(ValueError, match="model 'bad' on split 'test-style'"):
        evaluate({"good": ColourReader(), "bad": Diverged()}, packed, config=STYLE)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"splits": ()}, "splits"),
        ({"splits": ("a", "a")}, "splits"),
        ({"batch_size": 0}, "batch_size"),
        ({"nway": 1}, "nway"),
        ({"prompt": "a photo"}, "prompt"),
        ({"level": 95}, "level"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        EvaluateConfig(**fields)
