"""Tasks end to end: every kind of set in every layout, what is missing, what is kept, what a kill leaves."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.evaluate.conftest import COLOURS, ColourReader, png
from tests.evaluate.mirrors import encoded, npy, write_mirror

from pocketclip.checkpoint.store import create, save
from pocketclip.evaluate import SuiteConfig, evaluate_tasks, read_rows
from pocketclip.evaluate.book import queries_path
from pocketclip.evaluate.during import make_task_evaluator
from pocketclip.evaluate.resample import main_value, read_queries
from pocketclip.evaluate.sets import Missing, locate, open_set
from pocketclip.evaluate.sets import tables as tables_module

NAMES = list(COLOURS)
CONFIG = SuiteConfig(resamples=20)


def mirror(folder: Path, *, extra=lambda number: {}, **options) -> Path:
    """Two cards of every colour; the class is the colour's number."""
    samples = []
    for number in range(2 * len(NAMES)):
        label = number % len(NAMES)
        samples.append(
            {"png": png(COLOURS[NAMES[number % len(NAMES)]]), "cls": str(label).encode()} | extra(number)
        )
    options = {"names": NAMES, "templates": ("a {c} card", "{c}")} | options
    return write_mirror(folder, samples, **options)


def run(asked: str | list[str], root: Path, *, model=None, **options):
    wanted, missing = locate([asked] if isinstance(asked, str) else asked, roots=[root])
    return evaluate_tasks({"m": model or ColourReader()}, wanted, config=CONFIG, **options), missing


def only(report):
    (row,) = report.rows["m"]
    return row


@pytest.fixture
def tiny(tmp_path):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    loaded = create("pocketclip_tiny")
    save(tmp_path / "tiny.safetensors", loaded.model, config=loaded.config, tokenizer=loaded.tokenizer)
    return loaded


class TestLayouts:
    def test_the_mirror(self, tmp_path):
        mirror(tmp_path / "wds_cifar10_test")
        row = only(run("cifar10", tmp_path)[0])
        assert (row.key, row.dataset, row.metrics["acc1"]) == ("cifar10", "CIFAR-10", 1.0)
        assert row.metrics["main_metric"] == 1.0

    def test_folders_of_classes_by_name_number_and_wordnet_id(self, tmp_path):
        for folders, name in (
            (NAMES, "mine"),
            ([str(number) for number in range(1, 8)], "flowers"),
        ):
            for folder, colour in zip(folders, NAMES, strict=True):
                (tmp_path / name / "test" / folder).mkdir(parents=True)
                (tmp_path / name / "test" / folder / "a.png").write_bytes(png(COLOURS[colour]))
        row = only(run("mine", tmp_path)[0])
        assert row.metrics["acc1"] == 1.0
        pictures = open_set(locate(["flowers"], roots=[tmp_path])[0][0])
        assert [item.label for item in pictures.items] == list(range(7))
        shark = tmp_path / "imagenet-a" / "n01498041"  # its first class
        shark.mkdir(parents=True)
        (shark / "a.png").write_bytes(png((1, 2, 3)))
        pictures = open_set(locate(["imagenet-a"], roots=[tmp_path])[0][0])
        assert [item.label for item in pictures.items] == [0]

    def test_captions_beside_pictures(self, tmp_path):
        for form, places in {"urban1k": ("image", "caption"), "beside": ("", "")}.items():
            for number, name in enumerate(NAMES):
                for place, suffix, data in (
                    (places[0], "png", png(COLOURS[name])),
                    (places[1], "txt", f"a {name} card".encode()),
                ):
                    path = tmp_path / form / place / f"{number}.{suffix}"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(data)
            row = only(run(form, tmp_path)[0])
            assert row.metrics["mean_recall@1"] == row.metrics["main_metric"] == 1.0
            assert row.metrics["image_retrieval_recall@10"] == 1.0

    def test_our_own_shards_give_the_numbers_of_a_report(self, packed):
        from pocketclip.evaluate import EvaluateConfig, evaluate

        model = ColourReader(wrong=3)
        rows = run("cards", packed.parent, model=model)[0].rows["m"]
        assert [row.key for row in rows] == ["cards/test-style"]
        report = evaluate({"m": model}, packed, config=EvaluateConfig(splits=("test-style",), resamples=10))
        scores = report.result("m", "test-style").scores
        for ours, theirs in (
            ("mean_recall@1", "mean_recall@1"),
            ("text_retrieval_recall@5", "image_to_text_recall@5"),
            ("image_retrieval_recall@1", "text_to_image_recall@1"),
        ):
            assert rows[0].metrics[ours] == scores[theirs].value

    def test_tables_of_datasets(self, tmp_path):
        datasets = pytest.importorskip("datasets")
        labels = datasets.ClassLabel(names=NAMES)
        pictures = [{"bytes": png(COLOURS[name]), "path": None} for name in NAMES]
        table = datasets.Dataset.from_dict(
            {"img": pictures, "label": list(range(len(NAMES))), "n": list(range(7))},
            features=datasets.Features(
                {"img": datasets.Image(), "label": labels, "n": datasets.Value("int64")}
            ),
        )
        table.save_to_disk(str(tmp_path / "saved"))
        (tmp_path / "rows").mkdir()
        table.to_parquet(str(tmp_path / "rows/test-00000.parquet"))
        for name in ("saved", "rows"):
            assert only(run(name, tmp_path)[0]).metrics["acc1"] == 1.0

    def test_a_data_set_of_the_hub(self, tmp_path, monkeypatch):
        datasets = pytest.importorskip("datasets")
        table = datasets.Dataset.from_dict(
            {"image": [{"bytes": png(COLOURS[name]), "path": None} for name in NAMES], "text": NAMES},
            features=datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")}),
        )
        asked = []

        def load_dataset(name, *, split, revision):
            asked.append((name, split, revision))
            return table

        library = tables_module._library()
        monkeypatch.setattr(library, "load_dataset", load_dataset)
        monkeypatch.setattr(library, "get_dataset_split_names", lambda name, revision: ["train", "test"])
        row = only(run("cards=hf:somebody/cards@v1", tmp_path)[0])
        assert asked[-1] == ("somebody/cards", "test", "v1")
        assert (row.key, row.metrics["mean_recall@1"]) == ("cards", 1.0)


class TestMetrics:
    def test_groups_worst_regions_and_counts(self, tmp_path):
        """Region 1 holds the two pictures that are taken for others."""
        mirror(
            tmp_path / "wds_wilds-fmow_test",
            extra=lambda number: {"npy": npy([1 if number % 7 < 1 else 3, 14 + number % 2, 0])},
        )
        report, _ = run("fmow", tmp_path, model=ColourReader(wrong=1), out={"m": tmp_path / "r.jsonl"})
        metrics = only(report).metrics
        assert (metrics["acc_region:1"], metrics["count_region:1"]) == (0.0, 2.0)
        assert np.isnan(metrics["acc_region:0"])
        assert metrics["acc_region:3"] == 1.0
        assert metrics["acc_worst_region"] == metrics["main_metric"] == 0.0
        assert metrics["acc_worst_year"] == pytest.approx(6 / 7)

    def test_macro_f1_of_iwildcam_and_top_five_of_dollar_street(self, tmp_path):
        mirror(tmp_path / "wds_wilds-iwildcam_test", extra=lambda number: {"npy": npy([0] * 9)})
        metrics = only(run("iwildcam", tmp_path, model=ColourReader(wrong=1))[0]).metrics
        assert metrics["F1-macro_all"] == pytest.approx((0 + 2 / 3 + 5) / 7)
        assert metrics["recall-macro_all"] == pytest.approx(6 / 7)
        mirror(
            tmp_path / "wds_dollar_street_test",
            extra=lambda number: {
                "json": json.dumps({"income_ds": number % 4, "income_meta": 0, "region": 1}).encode()
            },
        )
        metrics = only(run("dollar_street", tmp_path)[0]).metrics
        assert metrics["acc_top5_wg"] == metrics["main_metric"] == 1.0
        assert metrics["count_income_ds:3"] == 3.0

    def test_faces(self, tmp_path):
        questions = ("race", "gender", "age", "toxic")
        names = [f"{question}:{name}" for question in questions for name in NAMES[:3]]
        mirror(
            tmp_path / "wds_fairface_test",
            names=names,
            templates=[f"{question}:a {{c}} card" for question in questions],
            extra=lambda number: {"npy": npy([number % 3, number % 3, 0, 0])},
        )
        row = only(run("fairface", tmp_path)[0])
        assert row.main is None
        assert row.metrics["main_metric"] is None
        assert row.metrics["acc_gender_avg"] > 0

    def test_sugarcrepe_of_its_own_files(self, tmp_path):
        folder = tmp_path / "sugarcrepe"
        (folder / "val2017").mkdir(parents=True)
        table = {}
        for number, name in enumerate(NAMES):
            (folder / f"val2017/{number}.png").write_bytes(png(COLOURS[name]))
            wrong = name if number == 0 else NAMES[(number + 1) % 7]
            table[str(number)] = {
                "filename": f"{number}.png",
                "caption": f"a {name} card",
                "negative_caption": f"{wrong}",
            }
        (folder / "add_obj.json").write_text(json.dumps(table))
        report, missing = run("sugarcrepe", tmp_path)
        # the pair of equal captions is a tie, which is a loss
        assert only(report).metrics["text_acc"] == pytest.approx(6 / 7)
        assert len(missing) == 6
        assert "sugar-crepe" in missing[0].command

    def test_winogavil(self, tmp_path):
        datasets = pytest.importorskip("datasets")
        rows = {"cue": [], "candidates": [], "associations": [], "candidate_images": []}
        for cue, colours in (("Red", NAMES[:5]), ("black", [*NAMES, *NAMES[:3]])):
            rows["cue"].append(cue)
            rows["candidates"].append([f"{name}{i}" for i, name in enumerate(colours)])
            chosen = [f"{name}{i}" for i, name in enumerate(colours) if name == cue.lower()] + ["yellow5"] * (
                len(colours) > 5
            )
            rows["associations"].append(chosen)
            rows["candidate_images"].append([{"bytes": png(COLOURS[c]), "path": None} for c in colours])
        (tmp_path / "winogavil").mkdir()
        datasets.Dataset.from_dict(
            rows,
            features=datasets.Features(
                {
                    "cue": datasets.Value("string"),
                    "candidates": datasets.List(datasets.Value("string")),
                    "associations": datasets.List(datasets.Value("string")),
                    "candidate_images": datasets.List(datasets.Image()),
                }
            ),
        ).to_parquet(str(tmp_path / "winogavil/test.parquet"))

        class Lower(ColourReader):
            def embed_texts(self, texts):
                self.texts = list(texts)
                return super().embed_texts(texts)

        model = Lower()
        metrics = only(run("winogavil", tmp_path, model=model)[0]).metrics
        assert model.texts == ["A red", "A black"]
        assert metrics["jaccard_score_5"] == 1.0
        # black is found; the second pick among equal ones is the last, not yellow: one of three
        assert metrics["jaccard_score_10-12"] == pytest.approx(1 / 3)
        assert np.isnan(metrics["jaccard_score_12"])


class TestMissing:
    def test_what_is_not_there_is_told_with_the_line_that_fetches_it(self, tmp_path):
        mirror(tmp_path / "wds_cifar10_test")
        report, missing = run(["cifar10", "pets", "emoji"], tmp_path)
        assert only(report).key == "cifar10"
        assert [one.key for one in missing] == ["vtab/pets", "emoji"]
        assert missing[0].command == (
            f"hf download djghosh/wds_vtab-pets_test --repo-type dataset --local-dir {tmp_path}/wds_vtab-pets_test"
        )
        assert missing[1].command == f"pocketclip pack emoji {tmp_path}/emoji"

    def test_a_name_that_nobody_knows(self, tmp_path):
        with pytest.raises(ValueError, match="no task 'cifr10'.*did you mean cifar10"):
            locate(["cifr10"], roots=[tmp_path])
        with pytest.raises(ValueError, match="holds no set"):
            locate([f"x={tmp_path}"], roots=[tmp_path])

    @pytest.mark.parametrize(
        ("damage", "words"),
        [
            (lambda folder: (folder / "test/1.tar").unlink(), "1.tar is missing (1 of 2"),
            (lambda folder: (folder / "test/nshards.txt").write_text("many"), "nshards.txt holds no number"),
            (lambda folder: (folder / "classnames.txt").write_text("red\n"), "there are 1 class names"),
            (lambda folder: (folder / "dataset_type.txt").write_text("multilabel"), "several labels"),
        ],
    )
    def test_a_damaged_set_is_told_and_the_others_go_on(self, tmp_path, damage, words):
        damage(mirror(tmp_path / "wds_cifar10_test"))
        mirror(tmp_path / "wds_stl10_test")
        report, _ = run(["cifar10", "stl10"], tmp_path)
        assert [row.key for row in report.rows["m"]] == ["stl10"]
        assert report.missing[0].key == "cifar10"
        assert words in report.missing[0].reason

    def test_metadata_that_is_not_there(self, tmp_path):
        mirror(tmp_path / "wds_geode_test")
        report, _ = run("geode", tmp_path)
        assert "metadata" in report.missing[0].reason
        assert isinstance(report.missing[0], Missing)

    def test_a_pickle_is_no_metadata(self, tmp_path):
        """An array of objects would have to be unpickled: the sample is dropped, and nothing is run."""
        import io

        buffer = io.BytesIO()
        np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
        mirror(
            tmp_path / "wds_geode_test",
            extra=lambda number: {"npy": buffer.getvalue() if number == 3 else npy([number % 2, 0])},
        )
        row = only(run("geode", tmp_path)[0])
        assert row.details["num_pictures"] == 13
        assert "damaged" in row.details["dropped"][0]

    def test_a_picture_that_cannot_be_read_is_left_out_and_named(self, tmp_path):
        mirror(
            tmp_path / "wds_cifar10_test",
            extra=lambda number: {"png": png((255, 0, 0))[:40]} if number == 4 else {},
        )
        row = only(run("cifar10", tmp_path)[0])
        assert (row.details["num_pictures"], len(row.details["dropped"])) == (13, 1)
        assert "s0000004.png" in row.details["dropped"][0]
        assert row.metrics["acc1"] == 1.0

    def test_a_diverged_model_is_an_error_rather_than_a_missing_set(self, tmp_path):
        mirror(tmp_path / "wds_cifar10_test")

        class Diverged(ColourReader):
            def embed_images(self, images):
                return np.full((len(images), len(COLOURS)), np.nan, dtype=np.float32)

        with pytest.raises(ValueError, match="model 'm' on CIFAR-10: 14 of 14"):
            run("cifar10", tmp_path, model=Diverged())


class TestKept:
    def test_results_are_kept_with_what_belongs_to_them(self, tmp_path, tiny):
        mirror(tmp_path / "wds_cifar10_test")
        out = tmp_path / "results.jsonl"
        report, _ = run("cifar10", tmp_path, model=tiny, out={"m": out})
        (row,) = read_rows(out)
        assert row == only(report)
        queries = read_queries(queries_path(out, "cifar10"))
        assert main_value("acc1", queries) == row.main
        assert row.details["interval"]["low"] <= row.main <= row.details["interval"]["high"]
        table = (tmp_path / "results.files/classes/cifar10.csv").read_text().splitlines()
        assert table[0].startswith("label,class,pictures,recall")
        assert len(table) == 1 + len(NAMES)
        with Image.open(tmp_path / "results.files/confusion/cifar10.png") as drawn:
            assert drawn.width > 400
            assert len(drawn.convert("RGB").getcolors(1 << 20)) > 3

    def test_what_is_there_is_not_computed_again(self, tmp_path, tiny, monkeypatch):
        for name in ("cifar10", "stl10"):
            mirror(tmp_path / f"wds_{name}_test")
        out = {"m": tmp_path / "r.jsonl"}
        run("cifar10", tmp_path, model=tiny, out=out)
        report, _ = run(["cifar10", "stl10"], tmp_path, model=tiny, out=out)
        assert report.kept == ("cifar10",)
        assert [row.key for row in read_rows(out["m"])] == ["cifar10", "stl10"]

        def forbidden(*args, **kwargs):
            raise AssertionError("nothing has to be embedded")

        monkeypatch.setattr(type(tiny.model), "encode_image", forbidden)
        again, _ = run(["cifar10", "stl10"], tmp_path, model=tiny, out=out)
        assert again.rows == report.rows

    def test_other_pictures_are_computed_again_and_another_model_is_refused(self, tmp_path, tiny):
        mirror(tmp_path / "wds_cifar10_test")
        out = {"m": tmp_path / "r.jsonl"}
        run("cifar10", tmp_path, model=tiny, out=out)
        mirror(tmp_path / "wds_cifar10_test", templates=("{c}",))
        assert run("cifar10", tmp_path, model=tiny, out=out)[0].kept == ()
        with torch.no_grad():
            other = create("pocketclip_tiny")
        with pytest.raises(ValueError, match="results of another model"):
            run("cifar10", tmp_path, model=other, out=out)

    def test_text_embeddings_are_kept_and_a_damaged_one_is_made_again(self, tmp_path, tiny, monkeypatch):
        mirror(tmp_path / "wds_cifar10_test")
        out = {"m": tmp_path / "r.jsonl"}
        first = only(run("cifar10", tmp_path, model=tiny, out=out)[0])
        (kept,) = (tmp_path / "r.files/texts").iterdir()
        out["m"].unlink()
        texts = []
        real = type(tiny.model).encode_text
        monkeypatch.setattr(
            type(tiny.model),
            "encode_text",
            lambda self, *args, **kwargs: texts.append(1) or real(self, *args, **kwargs),
        )
        assert only(run("cifar10", tmp_path, model=tiny, out=out)[0]) == first
        assert not texts
        kept.write_bytes(kept.read_bytes()[:60])
        out["m"].unlink()
        assert only(run("cifar10", tmp_path, model=tiny, out=out)[0]) == first
        assert texts

    @pytest.mark.slow
    def test_a_killed_run_goes_on_and_ends_the_same(self, tmp_path, tiny):
        names = ("cifar10", "stl10", "food101", "gtsrb", "mnist")
        for name in names:
            mirror(tmp_path / f"wds_{name}_test")
        whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
        program = [sys.executable, "-m", "pocketclip", "evaluate", f"m={tmp_path / 'tiny.safetensors'}"]
        program += ["--tasks", ",".join(names), "--data-root", str(tmp_path), "--out", str(killed)]
        running = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while not killed.is_file() and running.poll() is None:
            time.sleep(0.002)
        running.send_signal(signal.SIGKILL)
        running.communicate()
        left = read_rows(killed)
        assert left
        wanted, _ = locate(names, roots=[tmp_path])
        model = {"m": tmp_path / "tiny.safetensors"}
        report = evaluate_tasks(model, wanted, out={"m": killed})
        assert report.kept == tuple(row.key for row in left)
        evaluate_tasks(model, wanted, out={"m": whole})
        assert [row.metrics for row in read_rows(killed)] == [row.metrics for row in read_rows(whole)]

    @pytest.mark.slow
    def test_two_processes_give_what_one_gives(self, tmp_path, tiny):
        mirror(tmp_path / "wds_cifar10_test")
        model = tmp_path / "tiny.safetensors"
        wanted, _ = locate(["cifar10"], roots=[tmp_path])
        rows = [
            evaluate_tasks(
                {"m": str(model)},
                wanted,
                config=SuiteConfig(resamples=20, num_processes=number, batch_size=1, threads=1),
            ).rows["m"]
            for number in (1, 2)
        ]
        assert rows[0] == rows[1]
        with pytest.raises(ValueError, match="by path or name"):
            evaluate_tasks({"m": tiny}, wanted, config=SuiteConfig(num_processes=2))


def test_several_models_share_the_reading_and_get_rows_of_their_own(tmp_path):
    mirror(tmp_path / "wds_cifar10_test")
    wanted, _ = locate(["cifar10"], roots=[tmp_path])
    report = evaluate_tasks({"a": ColourReader(), "b": ColourReader(wrong=2)}, wanted, config=CONFIG)
    assert [rows[0].main for rows in report.rows.values()] == [1.0, pytest.approx(5 / 7)]


def test_evaluation_during_training_gives_the_numbers_of_a_run(tmp_path, tiny, packed):
    mirror(tmp_path / "wds_cifar10_test")
    wanted, _ = locate(["cifar10", "cards"], roots=[tmp_path, packed.parent])
    evaluator = make_task_evaluator(
        wanted, preprocess=tiny.config.preprocess, tokenize=tiny.tokenizer, batch_size=4
    )
    tiny.model.train()
    found = evaluator(tiny.model)
    assert tiny.model.training
    tiny.model.eval()
    rows = evaluate_tasks({"m": tiny}, wanted, config=CONFIG).rows["m"]
    assert found == {"cifar10/acc1": rows[0].main, "cards/test-style/mean_recall@1": rows[1].main}


@pytest.mark.slow
def test_an_exported_model(tmp_path, tiny):
    pytest.importorskip("onnxscript")
    from pocketclip.export import export

    mirror(tmp_path / "wds_cifar10_test")
    export(tmp_path / "tiny.safetensors", tmp_path / "exported")
    wanted, _ = locate(["cifar10"], roots=[tmp_path])
    report = evaluate_tasks(
        {"checkpoint": tmp_path / "tiny.safetensors", "exported": tmp_path / "exported"},
        wanted,
        config=CONFIG,
    )
    one, other = (rows[0] for rows in report.rows.values())
    assert one.metrics["acc1"] == other.metrics["acc1"]
    assert one.details["calibration_error"] == pytest.approx(other.details["calibration_error"], abs=1e-3)


@pytest.mark.reference
@pytest.mark.slow
def test_a_model_of_open_clip_by_name(tmp_path):
    pytest.importorskip("open_clip")
    mirror(tmp_path / "wds_cifar10_test")
    wanted, _ = locate(["cifar10"], roots=[tmp_path])
    report = evaluate_tasks({"theirs": "open_clip:MobileCLIP2-S0/random"}, wanted, config=CONFIG)
    assert report.rows["theirs"][0].details["model"] == "open_clip:MobileCLIP2-S0/random"


def test_settings_that_make_no_sense_are_refused(tmp_path):
    for fields in ({"batch_size": 0}, {"num_processes": 0}, {"threads": 0}, {"level": 2}):
        with pytest.raises(ValueError, match=next(iter(fields))):
            SuiteConfig(**fields)
    with pytest.raises(ValueError, match="no model"):
        evaluate_tasks({}, [])


def test_pictures_are_named_for_people(tmp_path):
    card = encoded(Image.new("RGB", (4, 4)), kind="PNG")
    write_mirror(tmp_path / "one", [{"png": card, "cls": b"0"}], names=["a"], templates=["{c}"], shards=1)
    pictures = open_set(locate([f"one={tmp_path / 'one'}"], roots=[])[0][0])
    assert pictures.items[0].source == "0.tar: s0000000.png"
