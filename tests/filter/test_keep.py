"""What is kept is what the rules say of the whole pool, and what is written is read by the training stream."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketclip.data.index import ShardIndex, read_index, split_shards, write_index
from pocketclip.data.reinforced import embeddings_of, reinforcement_of
from pocketclip.data.shard import ShardReader, write_shard
from pocketclip.data.stream import Stream, StreamConfig
from pocketclip.data.tables import Table, TableWriter
from pocketclip.data.tokenize import Tokenizer, TokenizerConfig
from pocketclip.filter import (
    Duplicates,
    FilterConfig,
    Pool,
    ScoreConfig,
    Top,
    filter_pool,
    parse_clusters,
    parse_duplicates,
    parse_rule,
    parse_top,
    score,
)
from pocketclip.filter.decide import decide

TOP = parse_top("score/vit=25%")


def columns(folder: Path, *names: str) -> dict[str, np.ndarray]:
    chunks = list(Pool([folder]).chunks(names))
    return {name: np.concatenate([chunk.columns[name] for chunk in chunks]) for name in names}


def keys_in(folder: Path, split: str = "train") -> list[str]:
    keys = []
    for path in split_shards(folder, split):
        with ShardReader(path) as shard:
            keys += shard.keys
    return keys


def listed(folder: Path) -> list[str]:
    return (folder / "kept.txt").read_text().split()


def test_keeps_the_top_of_the_whole_pool(scored: Path, shapes: Path, tmp_path: Path) -> None:
    decision = filter_pool([scored], tmp_path / "out", config=FilterConfig(tops=(TOP,)))
    values = columns(scored, "score/vit")["score/vit"]
    wanted = [keys_in(shapes)[row] for row in np.sort(np.argsort(-values)[:12])]
    assert decision.num_kept == 12
    assert decision.steps[0].facts["cut"] == np.sort(values)[-12]
    assert listed(tmp_path / "out") == keys_in(tmp_path / "out") == wanted


def test_training_takes_the_index_as_it_takes_copied_shards(scored: Path, tmp_path: Path) -> None:
    folders = {}
    for output in ("virtual", "copy"):
        folders[output] = tmp_path / output
        filter_pool([scored], folders[output], config=FilterConfig(tops=(TOP,), output=output))
    assert sum(path.stat().st_size for path in split_shards(folders["virtual"], "train")) < 2000
    tokenizer = Tokenizer(TokenizerConfig(vocab_size=4096, context_length=16))
    config = StreamConfig(batch_size=5, image_px=16)
    with (
        Stream(split_shards(folders["virtual"], "train"), config=config, tokenizer=tokenizer) as one,
        Stream(split_shards(folders["copy"], "train"), config=config, tokenizer=tokenizer) as other,
    ):
        for mine, theirs, _ in zip(one, other, range(5), strict=False):
            assert mine.keys == theirs.keys
            assert (mine.pixels_BHWC == theirs.pixels_BHWC).all()


@pytest.mark.parametrize("output", ["virtual", "copy"])
def test_reinforcement_goes_with_what_is_kept(output: str, reinforced: Path, tmp_path: Path) -> None:
    score(reinforced, tmp_path / "scores", config=ScoreConfig(stored=("vit",)))
    config = FilterConfig(tops=(TOP,), output=output)
    filter_pool([tmp_path / "scores"], tmp_path / "out", config=config)
    whole: dict[str, list[np.ndarray]] = {}
    for folder, check in ((reinforced, False), (tmp_path / "out", True)):
        for path in split_shards(folder, "train"):
            with ShardReader(path) as shard:
                block = reinforcement_of(shard)
                for row, key in enumerate(shard.keys):
                    conv, vit = embeddings_of(block, np.array([row]))
                    own = [block.params(row), conv.image_NAD, vit.text_TD]
                    if check:
                        assert all((a == b).all() for a, b in zip(own, whole[key], strict=True))
                    whole[key] = own
    assert read_index(tmp_path / "out").config["num_views"] == 3


@pytest.mark.parametrize("codec", ["bf16", "int8", "q4"])
def test_every_codec_survives_the_copy_to_the_bit(
    codec: str, shapes: Path, teachers: dict[str, Path], tmp_path: Path
) -> None:
    from pocketclip.reinforce import ReinforceConfig, reinforce
    from pocketclip.teachers import TeacherSpec

    spec = TeacherSpec(name="vit", source=str(teachers["vit"]))
    data = tmp_path / "data"
    reinforce(shapes, data, config=ReinforceConfig(teachers=(spec,), num_views=2, codec=codec))
    score(data, tmp_path / "scores", config=ScoreConfig(stored=("vit",)))
    rows = {}
    for output in ("virtual", "copy"):
        filter_pool([tmp_path / "scores"], tmp_path / output, config=FilterConfig(tops=(TOP,), output=output))
        for path in split_shards(tmp_path / output, "train"):
            with ShardReader(path) as shard:
                block = reinforcement_of(shard)
                (found,) = embeddings_of(block, np.arange(len(shard)))
                rows.setdefault(output, []).append(
                    np.concatenate([found.image_NAD.reshape(-1, 128), found.text_TD])
                )
    assert all((a == b).all() for a, b in zip(rows["virtual"], rows["copy"], strict=True))


def test_a_part_of_a_part_names_the_shard(scored: Path, tmp_path: Path, plain_config: Callable) -> None:
    filter_pool([scored], tmp_path / "half", config=FilterConfig(tops=(parse_top("score/vit=50%"),)))
    score(tmp_path / "half", tmp_path / "again", config=plain_config())
    config = FilterConfig(tops=(parse_top("score/even=6"),))
    filter_pool([tmp_path / "again"], tmp_path / "quarter", config=config)
    values = columns(tmp_path / "again", "score/even")["score/even"]
    wanted = [keys_in(tmp_path / "half")[row] for row in np.sort(np.argsort(-values, kind="stable")[:6])]
    assert sorted(keys_in(tmp_path / "quarter")) == sorted(wanted)


def test_what_was_kept_is_reinforced_as_a_folder_of_shards(
    scored: Path, teachers: dict[str, Path], tmp_path: Path
) -> None:
    from pocketclip.reinforce import ReinforceConfig, reinforce
    from pocketclip.teachers import TeacherSpec

    filter_pool([scored], tmp_path / "kept", config=FilterConfig(tops=(TOP,)))
    spec = TeacherSpec(name="vit", source=str(teachers["vit"]))
    reinforce(tmp_path / "kept", tmp_path / "out", config=ReinforceConfig(teachers=(spec,), num_views=1))
    assert keys_in(tmp_path / "out") == listed(tmp_path / "kept")
    assert all(path.suffix == ".tar" for path in split_shards(tmp_path / "out", "train"))


def test_steps_count_what_each_drops_and_what_each_would(scored: Path) -> None:
    rules = (parse_rule("words>=3"), parse_rule("chars>=12"), parse_rule("words>=3"))
    decision = decide(Pool([scored]), FilterConfig(rules=rules, tops=(TOP,)))
    found = columns(scored, "words", "chars", "score/vit")
    few, short = found["words"] < 3, found["chars"] < 12
    low = np.ones(48, bool)
    low[np.argsort(-found["score/vit"])[:12]] = False
    assert [step.num_dropped for step in decision.steps] == [
        few.sum(),
        (short & ~few).sum(),
        0,
        (low & ~few & ~short).sum(),
    ]
    assert [step.num_failing for step in decision.steps] == [few.sum(), short.sum(), few.sum(), low.sum()]
    assert (decision.times_N == (~few & ~short & ~low)).all()


def test_a_cut_of_what_is_left_is_another_than_that_of_the_pool(scored: Path) -> None:
    rule = parse_rule("chars<=12")
    pool, left = (
        decide(Pool([scored]), FilterConfig(rules=(rule,), tops=(replace(TOP, of=of),)))
        for of in ("pool", "kept")
    )
    num_left = int((columns(scored, "chars")["chars"] <= 12).sum())
    assert left.num_kept == round(num_left / 4 + 1e-9)
    assert pool.num_kept != left.num_kept


def test_a_uniform_subset_is_the_same_each_time_and_grows_by_adding(scored: Path) -> None:
    small, again, large, other = (
        decide(Pool([scored]), FilterConfig(samples=num, seed=seed)).times_N
        for num, seed in ((10, 0), (10, 0), (30, 0), (10, 1))
    )
    assert small.sum() == 10
    assert (small == again).all()
    assert (large >= small).all()
    assert (other != small).any()
    with pytest.raises(ValueError, match="49 samples are asked for, and 48 are left"):
        decide(Pool([scored]), FilterConfig(samples=49))


def test_a_mixture_takes_each_pool_by_its_weight(
    scored: Path, tmp_path: Path, pack_shapes: Callable, plain_config: Callable
) -> None:
    pack_shapes(tmp_path / "other", train=30, per_shard=7)
    score(tmp_path / "other", tmp_path / "more", config=plain_config())
    config = FilterConfig(weights=(3, 1), samples=40)
    filter_pool([scored, tmp_path / "more"], tmp_path / "mixed", config=config)
    entries = read_index(tmp_path / "mixed").splits["train"]
    counts = [sum(one.num_samples for one in entries if f"/{number:02d}/" in one.file) for number in (0, 1)]
    assert counts == [30, 10]
    assert len(keys_in(tmp_path / "mixed")) == 40
    with pytest.raises(ValueError, match="takes 300 samples of pool 1, of which 48 are left"):
        filter_pool([scored, tmp_path / "more"], tmp_path / "no", config=replace(config, samples=400))
    repeated = replace(config, samples=400, repeat=True)
    decision = filter_pool([scored, tmp_path / "more"], tmp_path / "yes", config=repeated)
    assert decision.num_kept == 400 == len(listed(tmp_path / "yes"))
    assert set(decision.times_N[:48].tolist()) <= {6, 7}
    assert set(decision.times_N[48:].tolist()) <= {3, 4}


def test_duplicates_leave_the_best_of_each_group(
    make_samples: Callable, tmp_path: Path, plain_config: Callable
) -> None:
    samples = make_samples(12)
    for row, original in ((5, 1), (7, 1), (9, 2)):
        samples[row] = replace(samples[row], image=samples[original].image)
    entry = write_shard(tmp_path / "data" / "train" / "000000.tar", samples)
    write_index(tmp_path / "data", ShardIndex(source="shapes", splits={"train": (entry,)}))
    score(tmp_path / "data", tmp_path / "scores", config=plain_config(embeddings=("even",)))
    values = columns(tmp_path / "scores", "score/odd", "phash")
    for duplicates in (Duplicates(bits=0), Duplicates(teacher="even", cosine=0.9999)):
        config = FilterConfig(duplicates=(duplicates,), best="score/odd")
        kept = decide(Pool([tmp_path / "scores"]), config).times_N > 0
        for group in ([1, 5, 7], [2, 9]):
            best = group[int(np.argmax(values["score/odd"][group]))]
            assert [row for row in group if kept[row]] in ([best], []), "never a worse one"


def test_clusters_keep_pictures_near_the_wanted_ones(scored: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    centroids = generator.standard_normal((6, 128)).astype(np.float32)
    with TableWriter() as tables:
        tables.append("centroids", Table(kind="F32", array=centroids))
        tables.append("wanted", Table(kind="I64", array=np.array([0, 3])))
        data = b"".join(tables.finish({}).chunks)
    path = tmp_path / "clusters.safetensors"
    path.write_bytes(data)
    from safetensors.numpy import load_file

    rows = []
    for file in Pool([scored]).files:
        stored = load_file(file.path)
        rows.append(stored["embedding/vit/values"] * stored["embedding/vit/scale"][:, None])
    unit = centroids / np.linalg.norm(centroids, axis=1, keepdims=True)
    nearest = (np.concatenate(rows) @ unit.T).argmax(axis=1)
    wanted = np.isin(nearest, [0, 3])
    config = FilterConfig(clusters=parse_clusters(f"vit={path}"))
    if wanted.any():
        assert (decide(Pool([scored]), config).times_N == wanted).all()
    else:
        with pytest.raises(ValueError, match="nothing of the 48 samples is kept"):
            decide(Pool([scored]), config)
    path.write_bytes(b"12345678")
    with pytest.raises(ValueError, match="is no file of clusters"):
        decide(Pool([scored]), config)


def test_the_report_adds_up_and_is_drawn(scored: Path, tmp_path: Path) -> None:
    filter_pool([scored], tmp_path / "out", config=FilterConfig(tops=(TOP,), examples=2))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["num_samples"] == 48
    assert report["num_kept"] == 12
    for one in report["scores"].values():
        assert sum(one["kept"]) == 12
        assert sum(one["dropped"]) == 36
        assert one["deciles"] == sorted(one["deciles"])
    assert "top score/vit=25%" in (tmp_path / "out" / "report.html").read_text()
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 24) or []}
    assert {(22, 150, 72), (200, 60, 50)} <= colours


def test_the_same_again_and_nothing_else_into_a_folder(scored: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    filter_pool([scored], out, config=FilterConfig(tops=(TOP,)))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    filter_pool([scored], out, config=FilterConfig(tops=(TOP,)))
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="filtered by other rules"):
        filter_pool([scored], out, config=FilterConfig(samples=3))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds other files \(notes.txt\)"):
        filter_pool([scored], tmp_path / "mine", config=FilterConfig())


def test_a_mistake_leaves_no_trace(scored: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no column 'score/other'"):
        filter_pool([scored], tmp_path / "out", config=FilterConfig(tops=(parse_top("score/other=5%"),)))
    assert not (tmp_path / "out").exists()


def test_a_language_that_cannot_be_told_is_told(scored: Path, tmp_path: Path) -> None:
    path = tmp_path / "scores"
    shutil.copytree(scored, path)
    index = read_index(path)
    write_index(path, replace(index, config={**index.config, "languages_by": "script"}))
    with pytest.raises(
        ValueError, match="scored without py3langid, by scripts alone, and does not tell 'en'"
    ):
        filter_pool([path], tmp_path / "out", config=FilterConfig(rules=(parse_rule("language=en"),)))


def test_shards_that_changed_since_are_told(
    pack_shapes: Callable, tmp_path: Path, plain_config: Callable
) -> None:
    pack_shapes(tmp_path / "data", train=10)
    score(tmp_path / "data", tmp_path / "scores", config=plain_config())
    pack_shapes(tmp_path / "data", train=9)
    with pytest.raises(ValueError, match="scores of another train/000000"):
        filter_pool([tmp_path / "scores"], tmp_path / "out", config=FilterConfig())
    (tmp_path / "data").rename(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="is not there: put it back"):
        filter_pool([tmp_path / "scores"], tmp_path / "two", config=FilterConfig())
    decision = filter_pool([tmp_path / "scores"], tmp_path / "ids", config=FilterConfig(output="ids"))
    assert len(listed(tmp_path / "ids")) == decision.num_kept == 10
    assert not (tmp_path / "ids" / "index.json").exists()


def test_columns_that_are_not_there_and_damaged_files_are_told(
    shapes: Path, tmp_path: Path, plain_config: Callable
) -> None:
    out = tmp_path / "scores"
    score(shapes, out, config=plain_config())
    with pytest.raises(ValueError, match=r"has no column 'score/l14', it has .*score/even"):
        decide(Pool([out]), FilterConfig(tops=(Top(column="score/l14", fraction=0.5),)))
    with pytest.raises(ValueError, match="holds shards, not scores"):
        Pool([shapes])
    file = sorted((out / "train").iterdir())[0]
    whole = file.read_bytes()
    for end in (0, 5, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"safetensors is (damaged|empty)"):
            decide(Pool([out]), FilterConfig(tops=(Top(column="score/even", fraction=0.5),)))


@pytest.mark.parametrize("text", ["score/a", "score/a=0.5", "score/a=0%", "score/a=101%", "score/a=0", "=5%"])
def test_cuts_of_other_forms_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="top"):
        parse_top(text)


def test_duplicates_are_written_as_hash_or_embedding() -> None:
    assert parse_duplicates("phash:4") == Duplicates(bits=4)
    assert parse_duplicates("l14:0.9") == Duplicates(teacher="l14", cosine=0.9)
    with pytest.raises(ValueError, match="phash:BITS or TEACHER:COSINE"):
        parse_duplicates("phash:few")
