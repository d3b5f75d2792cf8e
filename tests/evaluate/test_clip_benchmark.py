"""One model, the same pictures, two evaluators: our numbers are those of clip_benchmark."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.evaluate.make_prompts import FILE
from tests.evaluate.mirrors import accuracy, captions_set, encoded, shapes_set, write_mirror

from pocketclip.checkpoint.store import create
from pocketclip.data.picture import decode
from pocketclip.data.shard import ShardReader
from pocketclip.evaluate import SuiteConfig, evaluate_tasks
from pocketclip.evaluate.prompts import class_names, templates, wordnet_ids
from pocketclip.evaluate.sets import locate, open_set
from pocketclip.evaluate.tasks import TASKS

pytestmark = [
    pytest.mark.reference,
    pytest.mark.filterwarnings("ignore"),  # of webdataset and torch, which clip_benchmark uses
]
pytest.importorskip("clip_benchmark")
PHOTOS = Path(__file__).parents[3] / "shared/data/photos"
CONFIG = SuiteConfig(resamples=2, batch_size=16)


@pytest.fixture(scope="module")
def model():
    """Random weights, and BatchNorm statistics of noise, so that not every picture is taken for one class."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    loaded = create("pocketclip_tiny")
    noise = torch.randn(32, 3, 48, 48).cumsum(-1).clamp(-2, 2)
    with torch.no_grad():
        loaded.model.train()
        for _ in range(20):
            loaded.model.encode_image(noise[torch.randperm(32)])
    loaded.model.eval()
    return loaded


def theirs(loaded, folder, *, task):
    """clip_benchmark's metrics of a folder of the mirror's layout."""
    from clip_benchmark.datasets.builder import build_dataset
    from clip_benchmark.metrics import zeroshot_classification, zeroshot_retrieval

    pictures = build_dataset(
        f"wds/{folder.name}",
        root=str(folder),
        transform=loaded.preprocess,
        split="test",
        download=False,
        task=task,
    )
    loader = torch.utils.data.DataLoader(pictures.batched(16), batch_size=None, shuffle=False)
    if task == "zeroshot_retrieval":
        return zeroshot_retrieval.evaluate(
            loaded.model, loader, loaded.tokenize, device="cpu", amp=False, recall_k_list=[1, 5, 10]
        )
    zeroshot_classification.accuracy = accuracy
    loader.dataset.classes, loader.dataset.templates = pictures.classes, pictures.templates
    return zeroshot_classification.evaluate(
        loaded.model, loader, loaded.tokenize, pictures.classes, pictures.templates, device="cpu", amp=False
    )


def ours(loaded, folder, *, roots=()):
    wanted, missing = locate([f"here={folder}"], roots=roots)
    assert not missing
    (row,) = evaluate_tasks({"m": loaded}, wanted, config=CONFIG).rows["m"]
    return row.metrics


def check(loaded, folder, *, task):
    mine, reference = ours(loaded, folder), theirs(loaded, folder, task=task)
    assert set(reference) <= set(mine)
    for name, value in reference.items():
        assert mine[name] == pytest.approx(value, abs=1e-6), name
    return mine


@pytest.mark.parametrize("seed", [0, 1])
def test_zero_shot_classification(model, tmp_path, seed):
    found = check(model, shapes_set(tmp_path / "shapes", count=80, seed=seed), task="zeroshot_classification")
    assert 0 < found["acc1"] < 1
    assert found["mean_per_class_recall"] != pytest.approx(found["acc1"])


def test_retrieval(model, tmp_path):
    check(model, captions_set(tmp_path / "captions", count=60), task="zeroshot_retrieval")


@pytest.fixture(scope="module")
def emoji(tmp_path_factory):
    """Real pictures: some hundred emoji, packed as the demo packs them."""
    pytest.importorskip("resvg_py")
    from pocketclip.pack.emoji import EmojiConfig, pack_emoji

    folder = tmp_path_factory.mktemp("emoji") / "emoji"
    pack_emoji(folder, config=EmojiConfig(max_concepts=150))
    samples = []
    for path in sorted(folder.glob("*/*.tar")):
        with ShardReader(path) as shard:
            samples += [shard[row] for row in range(len(shard))]
    return [(sample, decode(sample.image, name=sample.key)) for sample in samples]


def test_emoji_as_classes_and_as_captions(model, emoji, tmp_path):
    names = sorted({sample.captions[0] for sample, _ in emoji})
    classes = [
        {"webp": encoded(image, kind="WEBP"), "cls": str(names.index(sample.captions[0])).encode()}
        for sample, image in emoji
    ]
    folder = write_mirror(tmp_path / "classes", classes, names=names, templates=("{c}", "a drawing of {c}"))
    check(model, folder, task="zeroshot_classification")
    captions = {
        sample.captions[0]: {"webp": encoded(image, kind="WEBP"), "txt": "\n".join(sample.captions).encode()}
        for sample, image in emoji
    }
    once = {text: sample for text, sample in captions.items() if "\n" not in text}
    folder = write_mirror(tmp_path / "captions", list(once.values()), kind="retrieval")
    texts = [text for sample in once.values() for text in sample["txt"].decode().splitlines()]
    if len(set(texts)) == len(texts):
        check(model, folder, task="zeroshot_retrieval")
    else:  # equal captions tie, and clip_benchmark leaves it to the sort who wins
        mine, reference = ours(model, folder), theirs(model, folder, task="zeroshot_retrieval")
        ties = len(texts) - len(set(texts))
        for name, value in reference.items():
            assert mine[name] == pytest.approx(value, abs=2 * ties / len(once)), name


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the photographs are not here")
@pytest.mark.slow
def test_photographs_of_imagenets_classes(model, tmp_path):
    ids = list(wordnet_ids(TASKS["imagenet1k"]))
    names = class_names(TASKS["imagenet1k"])
    chosen = sorted(PHOTOS.glob("*.JPEG"))[::10]
    samples = [
        {"jpg": path.read_bytes(), "cls": str(ids.index(path.name.split("_")[0])).encode()} for path in chosen
    ]
    prompts = templates(TASKS["imagenet1k"])[:2]
    folder = write_mirror(tmp_path / "photos", samples, names=names, templates=prompts)
    check(model, folder, task="zeroshot_classification")


def test_prompts_are_clip_benchmarks():
    """Every English template and class name, and which of ImageNet's classes the shifted sets have."""
    from tests.evaluate.make_prompts import collect

    assert json.loads(FILE.read_text(encoding="utf-8")) == collect()


@pytest.mark.parametrize("key", [key for key, task in TASKS.items() if task.kind == "classification"])
def test_what_a_set_without_files_of_its_own_is_prompted_with(key):
    """As clip_benchmark looks it up: by the set's own name, and ImageNet's templates for the rest."""
    from tests.evaluate.make_prompts import shipped

    table, short = shipped("zeroshot_classification_templates"), TASKS[key].short
    assert list(templates(TASKS[key])) == table.get(short, table["imagenet1k"])
    names = class_names(TASKS[key])
    if names is not None and TASKS[key].num_classes is not None:
        assert len(names) == TASKS[key].num_classes


def test_equal_captions_are_told_apart_by_their_place(model, tmp_path):
    """Public retrieval sets hold captions twice; no model can win all of those ties, and none loses all."""
    folder = captions_set(tmp_path / "captions", count=30)
    wanted, _ = locate([f"here={folder}"], roots=())
    pictures = open_set(wanted[0])
    assert len(pictures.items) == 30
    rng = np.random.default_rng(0)
    twice = [
        {"png": pictures.picture(row), "txt": f"text {row // 2}".encode()} for row in rng.permutation(30)
    ]
    mine = ours(model, write_mirror(tmp_path / "twice", twice, kind="retrieval"))
    assert mine["text_retrieval_recall@5"] > 0
