"""The cost sheet: its arithmetic is the bytes of real shards, its seconds are measured or given, nothing is written."""

from __future__ import annotations

import importlib
import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from tests.conftest import shape_samples
from tests.reinforce.test_shard import opened, request
from tests.teachers.plain_teachers import SOURCE, PlainTeacher

from pocketclip.data.augment_spec import AugmentSpec
from pocketclip.data.codec import CODECS
from pocketclip.data.index import ShardIndex, write_index
from pocketclip.data.reinforcement import BLOCK_NAME, Embeddings, ReinforcementWriter, TeacherRecord
from pocketclip.data.shard import ShardReader, write_shard
from pocketclip.data.tables import read_tables
from pocketclip.reinforce import (
    EngineConfig,
    PlanConfig,
    ReinforceConfig,
    plan_reinforcement,
    plan_seconds,
    reinforce,
    reinforce_shard,
)
from pocketclip.reinforce.plan_bytes import ShardShape, sample_bytes, shard_frame_bytes, table_bytes
from pocketclip.reinforce.plan_sheet import WHOLE, readable
from pocketclip.teachers import CaptionerSpec, TeacherSpec

FRAME = 10_240 / 2 + 600  # what a tar's end and the digits of a header may differ by


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(plan_seconds, "_ENOUGH_S", 0.01)
    monkeypatch.setattr(plan_seconds, "_ENCODED_FLOATS", 1 << 18)


def one_caption(num):
    return [replace(sample, captions=sample.captions[:1], synthetic={}) for sample in shape_samples(num)]


def pack(folder, samples, *, per_shard=10):
    entries = tuple(
        write_shard(folder / "train" / f"{start:06d}.tar", samples[start : start + per_shard])
        for start in range(0, len(samples), per_shard)
    )
    write_index(folder, ShardIndex(source="shapes", splits={"train": entries}))
    return folder


@pytest.fixture
def data(tmp_path):
    return pack(tmp_path / "data", one_caption(20))


def declared(*names, width=768, **fields):
    teachers = tuple(TeacherSpec(name=name, source=f"width:{width}") for name in names)
    return ReinforceConfig(**{"teachers": teachers, "num_threads": 1, **fields})


def block_parts(path):
    """Bytes of a shard's tables by what they are for, from its own header."""
    parts = {"parameters": 0, "shared": 0}
    with ShardReader(path) as reader:
        for name, table in read_tables(reader.block(BLOCK_NAME)).items():
            side, _, rest = name.partition("/")
            teacher, _, part = rest.partition("/")
            if side == "augment_params":
                key = "parameters"
            else:
                key = f"{side}/{teacher}" if part in ("values", "scale") and side != "basis" else "shared"
            parts[key] = parts.get(key, 0) + table.array.nbytes
        del table
    return parts


@pytest.mark.parametrize("codec", CODECS)
def test_the_arithmetic_is_the_bytes_of_a_real_shard(tmp_path, codec):
    samples = shape_samples(13)
    teachers = [PlainTeacher("small", image_px=9, width=6), PlainTeacher("larger", image_px=12, width=11)]
    spec = AugmentSpec(jitter=0.5)
    path = tmp_path / "000000.tar"
    with path.open("wb") as file:
        facts = reinforce_shard(
            opened(samples),
            file,
            name="train/000000.tar",
            teachers=teachers,
            request=request(codec=codec, num_views=3, augment=spec),
        )
    shape = ShardShape(
        num_samples=13,
        num_views=3,
        num_texts=facts.num_texts,
        augment=spec,
        widths={teacher.record.name: teacher.record.embed_dim for teacher in teachers},
    )
    expected, found = table_bytes(shape, codec_name=codec), block_parts(path)
    assert found.keys() == expected.keys()
    if codec == "q4":  # scales count as shared there, and the tables of segments as nothing
        assert sum(expected.values()) == pytest.approx(sum(found.values()), rel=0.08)
    else:
        assert found == expected
    own = sample_bytes(samples)
    whole = 13 * (own.picture + own.captions + own.tar) + sum(found.values())
    assert facts.num_bytes == pytest.approx(whole + shard_frame_bytes(shape, codec_name=codec), abs=FRAME)


@pytest.mark.parametrize(("num_views", "width"), [(2, 64), (10, 64), (3, 96)])
def test_q4_takes_what_was_said_or_a_little_less(num_views, width):
    num, texts, rng = 300, 3, np.random.default_rng(0)
    decay = np.arange(1, width + 1) ** -0.7

    def rows(*dims):
        made = rng.standard_normal((*dims, width)) * decay
        return (made / np.linalg.norm(made, axis=-1, keepdims=True)).astype(np.float32)

    spec = AugmentSpec()
    record = TeacherRecord(name="t", embed_dim=width, logit_scale=50.0, digest="0" * 64)
    with ReinforcementWriter(augment=spec, codec="q4", teachers=[record]) as writer:
        writer.add(
            np.zeros((num, num_views, spec.num_params), np.int32),
            [texts] * num,
            [Embeddings(image_NAD=rows(num, num_views), text_TD=rows(num * texts))],
        )
        block = writer.finish(config_digest="", input_sha256="", dropped={})
        found = sum(table.array.nbytes for table in read_tables(memoryview(b"".join(block.chunks))).values())
    shape = ShardShape(
        num_samples=num, num_views=num_views, num_texts=num * texts, augment=spec, widths={"t": width}
    )
    expected = sum(table_bytes(shape, codec_name="q4").values())
    assert 0.96 * expected < found <= expected


@pytest.mark.parametrize("codec", CODECS)
def test_a_whole_folder_takes_what_the_sheet_says(tmp_path, plain_config, codec):
    samples = [
        replace(sample, captions=sample.captions[: 1 + i % 2]) for i, sample in enumerate(shape_samples(40))
    ]
    data = pack(tmp_path / "data", samples, per_shard=20)
    config = replace(plain_config, codec=codec, num_views=4)
    sheet = plan_reinforcement(data, config=config)
    index = reinforce(data, tmp_path / "out", config=config)
    written = sum(entry.num_bytes for entry in index.splits["train"])
    assert (sheet.num_samples, sheet.num_shards) == (40, 2)
    assert sheet.total_bytes(codec) == pytest.approx(written, abs=2 * FRAME)


def test_a_data_set_of_billions_by_arithmetic_alone(data):
    captioner = CaptionerSpec(name="coca", source="chars:55", num_captions=5)
    config = declared("a", "b", num_views=2, captioners=(captioner,))
    sheet = plan_reinforcement(data, config=config, asked=PlanConfig(num_samples=1_900_000_000))
    assert sheet.num_shards == 1_900_000
    row = {"fp32": 4 * 768, "bf16": 2 * 768, "int8": 768 + 4}
    for codec, num_bytes in row.items():
        parts = sheet.sample_bytes[codec]
        assert [parts[f"image/{name}"] for name in "ab"] == [2 * num_bytes] * 2
        assert [parts[f"text/{name}"] for name in "ab"] == [6 * num_bytes] * 2
        assert parts["parameters"] == 2 * AugmentSpec().num_params * 4
        own = [8 + 8 / 1000, parts["parameters"], 16 * num_bytes]  # offsets of the captions, one more a shard
        assert sheet.reinforcement_bytes(codec) == pytest.approx(1.9e9 * sum(own), rel=1e-9)
        assert sheet.total_bytes(codec) == pytest.approx(1.9e9 * sum(parts.values()), rel=1e-9)
    embeddings = 1.9e9 * 16 * 768 * 4.5 / 8
    others = sheet.reinforcement_bytes("q4") - 1.9e9 * (8.008 + 88 + 331 * 4 / 1000)
    assert others == pytest.approx(embeddings, rel=1e-4)
    assert f"{readable(sheet.total_bytes('bf16'))}" in sheet.text()
    assert sheet.worker_s is None
    assert "say so with --rate: caption/coca image/a text/a image/b text/b" in sheet.text()


def test_the_reference_of_the_paper(data):
    """12.8 million samples, 30 views, two teachers of 768, 5 captions: 36 rows of 1536 values a sample."""
    captioner = CaptionerSpec(name="coca", source="chars:55", num_captions=5)
    config = declared("a", "b", num_views=30, captioners=(captioner,))
    sheet = plan_reinforcement(data, config=config, asked=PlanConfig(num_samples=12_800_000))
    rows = {
        codec: sum(size for part, size in parts.items() if part.partition("/")[0] in ("image", "text"))
        for codec, parts in sheet.sample_bytes.items()
    }
    assert rows["fp32"] == 36 * 1536 * 4
    assert rows["bf16"] == 36 * 1536 * 2
    assert rows["int8"] == 36 * 2 * (768 + 4)
    assert rows["q4"] < 36 * 1536 * 4.5 / 8


def test_declared_captions_are_counted_with_the_pictures_own(tmp_path):
    data = pack(tmp_path / "data", shape_samples(12))  # three texts each
    captioners = tuple(
        CaptionerSpec(name=name, source=f"chars:{length}", num_captions=num)
        for name, length, num in (("short", 1, 2), ("long", 700, 3))
    )
    plain, captioned = (
        plan_reinforcement(data, config=declared("a", captioners=some)) for some in ((), captioners)
    )
    rows = [sheet.sample_bytes["bf16"]["text/a"] / (2 * 768) for sheet in (plain, captioned)]
    assert rows == [3, 8]
    more = captioned.sample_bytes["bf16"]["captions"] - plain.sample_bytes["bf16"]["captions"]
    assert 2 + 3 * 700 < more < 2 + 3 * 700 + 60


def test_rates_scale_what_they_speak_of_and_nothing_else(data):
    captioner = CaptionerSpec(name="coca", source="chars:55", num_captions=5)
    config = declared("a", num_views=10, captioners=(captioner,))
    rates = {"image/a": 1000.0, "text/a": 3000.0, "caption/coca": 50.0}
    asked = PlanConfig(num_samples=36_000, rates=rates, price_per_hour=3.0)
    engine = EngineConfig(kind="ray", max_workers=4)
    sheet = plan_reinforcement(data, config=config, engine=engine, asked=asked)
    seconds = sheet.sample_seconds
    assert seconds["image/a"] == pytest.approx(10 / 1000)
    assert seconds["text/a"] == pytest.approx(6 / 3000)
    assert seconds["caption/coca"] == pytest.approx(5 / 50)
    drawing = seconds["decode"] + seconds["augment"]
    assert sheet.worker_s == pytest.approx(sum(seconds.values()) - drawing)
    assert sheet.worker_hours == pytest.approx(10 * sheet.worker_s)
    assert sheet.price == pytest.approx(30 * sheet.worker_s)
    told = sheet.to_json()
    assert json.loads(json.dumps(told)) == told
    assert told["hours"] == pytest.approx(sheet.worker_hours / 4)
    assert f"{sheet.price:,.2f} at 3.00 for an hour of a worker" in sheet.text()
    assert "4 workers" in sheet.text()
    assert "image tower of a, as given" in sheet.text()


def test_teachers_that_are_faster_than_the_loaders_wait_for_them(data):
    rates = {"image/a": 1e9, "text/a": 1e9}
    config = declared("a", num_views=30)
    sheet = plan_reinforcement(data, config=config, asked=PlanConfig(rates=rates))
    drawing = sheet.sample_seconds["decode"] + sheet.sample_seconds["augment"]
    assert sheet.worker_s == pytest.approx(drawing / 2)
    assert "wait for pictures" in sheet.text()
    more = plan_reinforcement(
        data, config=config, engine=EngineConfig(num_loaders=1000), asked=PlanConfig(rates=rates)
    )
    assert "wait for pictures" not in more.text()


def test_teachers_and_captioners_that_are_there_are_measured(tmp_path, plain_config, monkeypatch):
    monkeypatch.setenv("POCKETCLIP_TEST_SECONDS", "0.05")
    data = pack(tmp_path / "data", shape_samples(12))
    captioner = CaptionerSpec(name="sizes", source="python:plain_captioners:make", num_captions=2)
    config = replace(plain_config, captioners=(captioner,))
    sheet = plan_reinforcement(data, config=config)
    order = ["read", "decode", "augment", "caption/sizes"]
    order += ["image/even", "text/even", "image/odd", "text/odd", "encode", "write"]
    assert list(sheet.sample_seconds) == order
    assert all(seconds >= 0 for seconds in sheet.sample_seconds.values())
    # four rows at once, so slow is it; two views of a sample
    assert 0.05 / 4 * 2 < sheet.sample_seconds["image/even"] < 0.1
    assert sheet.sample_seconds["text/even"] < sheet.sample_seconds["image/even"]
    assert sheet.sample_bytes["bf16"]["text/even"] == 5 * 6 * 2  # three texts and two captions of width 6
    cores_s = (
        sum(sheet.sample_seconds.values()) - sheet.sample_seconds["decode"] - sheet.sample_seconds["augment"]
    )
    assert sheet.worker_s >= cores_s


def test_a_slow_teacher_is_asked_little(data, monkeypatch, plain_config):
    monkeypatch.setattr(plan_seconds, "_ENOUGH_S", 0.1)
    monkeypatch.setenv("POCKETCLIP_TEST_SECONDS", "0.2")
    seen = []
    plugged = importlib.import_module("plain_teachers").PlainTeacher
    encode = plugged.encode_image
    monkeypatch.setattr(
        plugged, "encode_image", lambda self, pixels: seen.append(len(pixels)) or encode(self, pixels)
    )
    config = replace(plain_config, teachers=(TeacherSpec(name="even", source=SOURCE),), batch_size=256)
    sheet = plan_reinforcement(data, config=config)
    assert seen == [4, 4]
    assert 2 * 0.2 / 4 < sheet.sample_seconds["image/even"] < 2 * 0.2


def test_nothing_is_written(data, plain_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def files():
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    before = files()
    plan_reinforcement(data, config=plain_config)
    assert files() == before


def test_what_cannot_be_used_is_said(tmp_path, plain_config):
    samples = one_caption(12)
    damaged = [
        replace(sample, image=sample.image[:60]) if i in (0, 5) else sample
        for i, sample in enumerate(samples)
    ]
    sheet = plan_reinforcement(
        pack(tmp_path / "some", damaged), config=plain_config, asked=PlanConfig(num_measured=8)
    )
    assert sheet.num_measured == 8
    assert "2 of the first 10 cannot be used" in sheet.text()
    nothing = [replace(sample, image=sample.image[:60]) for sample in samples]
    with pytest.raises(
        ValueError, match="no sample of .* can be reinforced: sample0011: .*damaged or cut off"
    ):
        plan_reinforcement(pack(tmp_path / "none", nothing), config=plain_config)


def test_tars_that_do_not_count_are_counted_by_their_bytes(data, tmp_path, plain_config):
    raw = tmp_path / "raw"
    raw.mkdir()
    for number in range(4):
        shutil.copy(data / "train" / "000000.tar", raw / f"{number}.tar")
    sheet = plan_reinforcement(raw, config=plain_config, asked=PlanConfig(num_measured=4))
    assert (sheet.num_samples, sheet.num_shards) == (40, 4)
    assert "scaled by bytes" in sheet.text()
    whole = plan_reinforcement(raw, config=plain_config)
    assert whole.num_samples == 40
    assert "scaled by bytes" not in whole.text()


def test_parts_of_a_shard_that_are_there_anyway_are_no_reinforcement(data):
    sheet = plan_reinforcement(data, config=declared("a"))
    shard = io.BytesIO((data / "train" / "000000.tar").read_bytes()).getbuffer()
    parts = sheet.sample_bytes["fp32"]
    assert sum(parts[part] for part in ("picture", "captions", "tar")) == pytest.approx(
        len(shard) / 10, abs=1024
    )
    added = sum(size for part, size in parts.items() if part not in WHOLE)
    assert sheet.reinforcement_bytes("fp32") == round(20 * added)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rates": {"image/b": 1.0}}, "rate of 'image/b' is of nobody: known are image/a, text/a"),
        ({"rates": {"a": 1.0}}, "is of nobody"),
        ({"rates": {"image/a": 0.0}}, "image/a must be a positive number"),
        ({"rates": {"image/a": float("nan")}}, "image/a must be a positive number"),
        ({"price_per_hour": -1.0}, "price_per_hour must be a positive number"),
        ({"num_samples": 0}, "num_samples must be at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(data, fields, message):
    with pytest.raises(ValueError, match=message):
        plan_reinforcement(data, config=declared("a"), asked=PlanConfig(**fields))


def test_a_captioners_name_that_is_taken_is_refused(tmp_path):
    data = pack(tmp_path / "data", shape_samples(2))
    config = declared("a", captioners=(CaptionerSpec(name="rule", source="chars:9"),))
    with pytest.raises(ValueError, match="captions of rule already: give the captioner another name"):
        plan_reinforcement(data, config=config)


class TestCommandLine:
    def test_it_prints_a_sheet_without_an_output(self, cli, data):
        arguments = ["--plan", "--teacher", "a=width:768", "--views", "2", "--samples", "1000000"]
        ran = cli(
            "reinforce", data, *arguments, "--rate", "image/a=1500", "text/a=9000", "--price-per-hour", "2"
        )
        assert ran.code == 0, ran.err
        assert "1,000,000 samples in 1,000 shards" in ran.out
        lines = [line.split() for line in ran.out.splitlines()]
        assert ["image", "tower", "of", "a", "6,144", "3,072", "1,544"] in [line[:7] for line in lines]
        assert "worker-hours" in ran.out
        assert "at 2.00 for an hour" in ran.out

    def test_as_json(self, cli, data):
        ran = cli("reinforce", data, "--plan", "--teacher", "a=width:8", "--json")
        assert json.loads(ran.out)["sample_bytes"]["fp32"]["image/a"] == 10 * 8 * 4

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ([], "needs a folder or address for its shards"),
            (["out", "--samples", "9"], "are for --plan"),
            (["out", "--rate", "image/a=3"], "are for --plan"),
            (["--plan", "--rate", "image/a"], "not of the form PART=A_SECOND"),
            (["--plan", "--rate", "image/a=fast"], "not of the form PART=A_SECOND"),
        ],
    )
    def test_wrong_usage(self, cli, data, arguments, words):
        ran = cli("reinforce", data, *arguments, "--teacher", "a=width:8")
        assert ran.code == 2
        assert words in ran.sentence()
