"""The reinforcement block: rows come back to their own samples; other tools can read it; damage is told."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
import safetensors.torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketclip.data.augment import draw, pack, seeded
from pocketclip.data.augment_spec import AugmentSpec
from pocketclip.data.codec import CODECS
from pocketclip.data.codec_error import cosines, target_error
from pocketclip.data.reinforcement import (
    Embeddings,
    Reinforcement,
    ReinforcementWriter,
    TeacherRecord,
    pack_reinforcement,
    read_rows,
)


def unit(*shape: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def make_block(counts=(2, 1, 3), *, views=4, codec="fp32", seed=0):
    spec = AugmentSpec()
    params = np.stack(
        [
            np.stack([pack(draw(seeded(seed, i, a), width=30, height=20, spec=spec)) for a in range(views)])
            for i in range(len(counts))
        ]
    )
    tables = {
        name: Embeddings(
            image_NAD=unit(len(counts), views, width, seed=seed),
            text_TD=unit(sum(counts), width, seed=seed + 1),
        )
        for name, width in (("conv", 8), ("vit", 6))
    }
    records = {
        name: TeacherRecord(name=name, embed_dim=t.text_TD.shape[1], logit_scale=50.0, digest="d")
        for name, t in tables.items()
    }
    block = pack_reinforcement(
        config_digest="config",
        input_sha256="input",
        augment=spec,
        codec=codec,
        params_NAP=params,
        text_counts=counts,
        teachers=[(records[name], tables[name]) for name in tables],
        dropped={"gone": "truncated"},
    )
    return block, params, tables


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.integers(1, 5), st.integers(0, 50))
def test_every_row_belongs_to_its_own_sample(counts, views, seed):
    block, params, tables = make_block(tuple(counts), views=views, seed=seed)
    read = Reinforcement(memoryview(block), name="shard")
    assert len(read) == len(counts)
    assert read.num_views == views
    np.testing.assert_array_equal(read.augment_params_NAP, params)
    starts = np.concatenate([[0], np.cumsum(counts)])
    for name, table in tables.items():
        for i, count in enumerate(counts):
            sample = np.full(views, i)
            np.testing.assert_array_equal(read.image_rows(name, sample, np.arange(views)), table.image_NAD[i])
            rows = read.text_rows(name, np.full(count, i), np.arange(count))
            np.testing.assert_array_equal(rows, table.text_TD[starts[i] : starts[i + 1]])


@pytest.mark.parametrize("codec", CODECS)
def test_the_safetensors_library_reads_the_block(codec):
    block, params, _ = make_block(codec=codec)
    tensors = safetensors.torch.load(block)
    np.testing.assert_array_equal(tensors["augment_params"].numpy(), params)
    values = tensors["image/conv/values"].float()
    if codec == "int8":
        values = values * tensors["image/conv/scale"][:, None]
    if codec == "q4":  # tests/data/test_codec_q4.py decodes it by hand
        assert values.shape[0] == 12
        return
    expected = Reinforcement(memoryview(block), name="shard").image_rows("conv", np.array([1]), np.array([2]))
    np.testing.assert_array_equal(values[4 + 2].numpy(), expected[0])


@pytest.mark.parametrize("codec", CODECS)
def test_the_header_says_what_was_done_and_what_it_cost(codec):
    block, _, tables = make_block(codec=codec, counts=(2, 1, 3, 1, 2))
    read = Reinforcement(memoryview(block), name="shard")
    header = read.header
    assert (header.config_digest, header.input_sha256, header.codec) == ("config", "input", codec)
    assert [teacher.name for teacher in header.teachers] == ["conv", "vit"]
    assert header.augment == AugmentSpec()
    assert header.dropped == {"gone": "truncated"}
    starts = np.array([0, 2, 3, 6, 7])
    for name, exact in tables.items():
        samples = np.arange(5)
        stored = {
            "image": np.stack([read.image_rows(name, samples, np.full(5, a)) for a in range(4)], axis=1),
            "text": np.concatenate(
                [read.text_rows(name, np.full(n, i), np.arange(n)) for i, n in enumerate((2, 1, 3, 1, 2))]
            ),
        }
        target = target_error(
            image_BD=exact.image_NAD[:, 0],
            text_BD=exact.text_TD[starts],
            stored_image_BD=stored["image"][:, 0],
            stored_text_BD=stored["text"][starts],
            logit_scale=50.0,
        )
        for side, rows in (("image", exact.image_NAD), ("text", exact.text_TD)):
            width = rows.shape[-1]
            cosine = cosines(rows.reshape(-1, width), stored[side].reshape(-1, width))
            error = header.errors[f"{side}/{name}"]
            assert (error.cosine_mean, error.cosine_min) == pytest.approx(
                (cosine.mean(), cosine.min()), abs=1e-6
            )
            assert (error.target_kl, error.target_tv) == pytest.approx(target, abs=1e-5)


@pytest.mark.parametrize("codec", CODECS)
def test_the_bytes_do_not_depend_on_the_groups(codec):
    counts = (2, 1, 3, 1, 2, 4, 1)
    whole, params, tables = make_block(codec=codec, counts=counts)
    assert make_block(codec=codec, counts=counts)[0] == whole
    header = Reinforcement(memoryview(whole), name="shard").header
    starts = np.concatenate([[0], np.cumsum(counts)])
    for edges in ([0, 7], [0, 1, 7], [0, 3, 4, 6, 7]):
        with ReinforcementWriter(augment=AugmentSpec(), codec=codec, teachers=header.teachers) as writer:
            for start, end in pairwise(edges):
                parts = [
                    Embeddings(
                        image_NAD=tables[teacher.name].image_NAD[start:end],
                        text_TD=tables[teacher.name].text_TD[starts[start] : starts[end]],
                    )
                    for teacher in header.teachers
                ]
                writer.add(params[start:end], counts[start:end], parts)
            block = writer.finish(config_digest="config", input_sha256="input", dropped=header.dropped)
            assert b"".join(block.chunks) == whole
            assert writer.errors() == header.errors


def test_the_target_is_measured_on_the_first_pairs_alone():
    rows = unit(300, 2, 8, seed=0)
    text = unit(300, 8, seed=1)
    record = TeacherRecord(name="conv", embed_dim=8, logit_scale=50.0, digest="d")
    found = []
    for num in (256, 300):
        with ReinforcementWriter(augment=AugmentSpec(), codec="int8", teachers=[record]) as writer:
            params = np.zeros((num, 2, 11), np.int32)
            writer.add(params[:200], [1] * 200, [Embeddings(image_NAD=rows[:200], text_TD=text[:200])])
            writer.add(
                params[200:], [1] * (num - 200), [Embeddings(image_NAD=rows[200:num], text_TD=text[200:num])]
            )
            writer.finish(config_digest="", input_sha256="", dropped={})
            found.append(writer.errors()["image/conv"])
    assert found[0].target_kl == found[1].target_kl > 0
    assert found[0].cosine_mean != found[1].cosine_mean


@pytest.mark.parametrize("codec", CODECS)
@given(data=st.data())
@settings(max_examples=25)
def test_a_batch_from_several_shards_is_what_each_row_is_alone(codec, data):
    blocks = [
        Reinforcement(memoryview(SHARDS[codec][number]), name=str(number))
        for number in data.draw(st.permutations(range(3)))
    ]
    num = data.draw(st.integers(0, 12))
    shard = np.array(data.draw(st.lists(st.integers(0, 2), min_size=num, max_size=num)), dtype=np.int64)
    sample = np.array([data.draw(st.integers(0, len(blocks[s]) - 1)) for s in shard], dtype=np.int64)
    view = np.array([data.draw(st.integers(0, 3)) for _ in shard], dtype=np.int64)
    counts = [np.diff(blocks[s].text_offsets)[i] for s, i in zip(shard, sample, strict=True)]
    text = np.array(
        [[data.draw(st.integers(0, int(count) - 1)) for count in counts] for _ in range(2)], dtype=np.int64
    )
    rows = read_rows(blocks, teacher="vit", shard_B=shard, sample_B=sample, view_B=view, text_TB=text)
    assert (rows.image_BD.dtype, len(rows.image_BD), rows.text_TBD.shape[:2]) == (np.float32, num, (2, num))
    for b in range(num):
        block, one = blocks[shard[b]], sample[b : b + 1]
        alone = block.image_rows("vit", one, view[b : b + 1])[0]
        np.testing.assert_allclose(rows.image_BD[b], alone, atol=1e-6)
        for t in range(2):
            alone = block.text_rows("vit", one, text[t, b : b + 1])[0]
            np.testing.assert_allclose(rows.text_TBD[t, b], alone, atol=1e-6)


SHARDS = {
    codec: [
        make_block(counts, codec=codec, seed=seed)[0] for seed, counts in enumerate([(2, 1, 3), (1,), (4, 4)])
    ]
    for codec in CODECS
}


@pytest.mark.parametrize(
    ("sample", "view", "text", "what"),
    [
        (3, 0, 0, "sample 3"),
        (-1, 0, 0, "sample -1"),
        (0, 4, 0, "view 4"),
        (0, -1, 0, "view -1"),
        (1, 0, 1, "caption 1"),
        (0, 0, -2, "caption -2"),
    ],
)
def test_a_row_that_is_not_there_is_not_another_samples(sample, view, text, what):
    block = Reinforcement(memoryview(SHARDS["bf16"][0]), name="000.tar")
    with pytest.raises(IndexError, match=rf"000\.tar has no {what}"):
        read_rows(
            [block],
            teacher="conv",
            shard_B=np.zeros(2, np.int64),
            sample_B=np.array([0, sample]),
            view_B=np.array([0, view]),
            text_TB=np.array([[0, text]]),
        )


def test_a_teacher_that_is_not_there_is_told():
    block = Reinforcement(memoryview(SHARDS["bf16"][0]), name="000.tar")
    with pytest.raises(
        ValueError, match=r"000\.tar has no embeddings of teacher 'big', it has those of conv, vit"
    ):
        block.image_rows("big", np.array([0]), np.array([0]))


AGAIN = r"000\.tar.*run `pocketclip reinforce` again"


@pytest.mark.parametrize("keep", [0, 5, 100, 1200, -1])
def test_a_cut_block_is_told_with_its_shard(keep):
    block, _, _ = make_block()
    with pytest.raises(ValueError, match=AGAIN):
        Reinforcement(memoryview(block[:keep]), name="000.tar")


def test_another_version_is_told():
    block, _, _ = make_block()
    other = block.replace(b'"version":"1"', b'"version":"9"')
    with pytest.raises(ValueError, match="version '9'"):
        Reinforcement(memoryview(other), name="000.tar")


def read_everything(block):
    """Reads all rows of a block that opened: nothing may go wrong then."""
    read = Reinforcement(memoryview(block), name="000.tar")
    samples = np.repeat(np.arange(len(read)), read.num_views)
    counts = np.diff(read.text_offsets)
    texts = np.concatenate([np.arange(count) for count in counts])
    for teacher in read.header.teachers:
        read.image_rows(teacher.name, samples, np.tile(np.arange(read.num_views), len(read)))
        read.text_rows(teacher.name, np.repeat(np.arange(len(read)), counts), texts)


def opened_or_told(block):
    try:
        with np.errstate(all="ignore"):  # a scale that was hit may be anything
            read_everything(block)
    except ValueError as error:
        sentence = str(error)
        assert sentence.startswith("000.tar: the reinforcement block is ")
        assert "run `pocketclip reinforce` again" in sentence
        assert "\n" not in sentence


@pytest.mark.parametrize("codec", CODECS)
@given(data=st.data())
@settings(max_examples=150)
def test_flipped_bits_are_told_or_harmless(codec, data):
    block = bytearray(SHARDS[codec][0])
    header_end = 8 + int.from_bytes(block[:8], "little")
    # The header, and the small tables behind it that say where others are.
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, min(len(block), header_end + 400) - 1))
        block[at] ^= 1 << data.draw(st.integers(0, 7))
    opened_or_told(bytes(block))


def with_layout(block, change):
    """A block with another header before the same tables."""
    length = int.from_bytes(block[:8], "little")
    layout = json.loads(block[8 : 8 + length])
    change(layout)
    text = json.dumps(layout).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + block[8 + length :]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(
        ["F32", "BF16", "U16", "I8", "I32", "I64", "q4", "int8", "[]", "{}", "[1]", "nan", "1e999"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@pytest.mark.parametrize("codec", CODECS)
@given(data=st.data())
@settings(max_examples=150)
def test_a_header_that_says_anything_else_is_told_or_harmless(codec, data):
    def change(layout):
        table = data.draw(st.sampled_from(sorted(layout)))
        field = data.draw(st.sampled_from(sorted(layout[table])))
        value = data.draw(JSON)
        match data.draw(st.sampled_from(["field", "place", "table", "gone", "new"])):
            case "field":
                layout[table][field] = (
                    value if table != "__metadata__" else inner(layout[table][field], value)
                )
            case "place" if isinstance(layout[table].get("shape"), list):
                which = data.draw(st.sampled_from(["shape", "data_offsets"]))
                at = data.draw(st.integers(0, len(layout[table][which]) - 1))
                layout[table][which][at] += data.draw(st.integers(-40, 40))
            case "table":
                layout[table] = value
            case "gone":
                del layout[table]
            case _:
                layout["more"] = layout[table]

    def inner(text, value):
        """A header's text that is JSON, with one of its values changed; else another text."""
        try:
            parsed = json.loads(text)
        except ValueError:
            return json.dumps(value)
        if isinstance(parsed, dict) and parsed:
            parsed[data.draw(st.sampled_from([*sorted(parsed), "more"]))] = value
        elif isinstance(parsed, list) and parsed and isinstance(parsed[0], dict):
            parsed[0][data.draw(st.sampled_from(sorted(parsed[0])))] = value
        else:
            return json.dumps(value)
        return json.dumps(parsed)

    opened_or_told(with_layout(SHARDS[codec][0], change))


FAULTS = {
    "another shape": (
        lambda layout: layout["image/vit/values"].update(shape=[6, 12]),
        "table image/vit/values is F32 of shape",
    ),
    "no embeddings of a teacher": (
        lambda layout: layout["__metadata__"].update(
            teachers=layout["__metadata__"]["teachers"].replace("vit", "vat"),
            errors=layout["__metadata__"]["errors"].replace("vit", "vat"),
        ),
        "table image/vat/values is missing",
    ),
    "embeddings of nobody": (
        lambda layout: layout.update({"image/vat/values": layout.pop("image/vit/values")}),
        "table image/vit/values is missing",
    ),
    "errors of nobody": (
        lambda layout: layout["__metadata__"].update(errors="{}"),
        "errors lacks image/conv, image/vit, text/conv, text/vit",
    ),
    "another codec": (
        lambda layout: layout["__metadata__"].update(codec="bf16"),
        "table image/conv/values is F32 of shape",
    ),
    "an unknown codec": (
        lambda layout: layout["__metadata__"].update(codec="zip"),
        "codec 'zip' is unknown, this program reads fp32, bf16, int8, q4",
    ),
    "another number of parameters": (
        lambda layout: layout["augment_params"].update(shape=[3, 2, 22]),
        "expected I32 of anyxanyx11",
    ),
    "no sample": (
        lambda layout: layout["__metadata__"].update(dropped="[]"),
        "dropped is",
    ),
    "no temperature": (
        lambda layout: layout["__metadata__"].update(
            teachers=layout["__metadata__"]["teachers"].replace("50.0", "0")
        ),
        "logit_scale of teacher conv is 0",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_said(fault):
    change, message = FAULTS[fault]
    block, _, _ = make_block()
    with pytest.raises(ValueError, match=AGAIN) as caught:
        Reinforcement(memoryview(with_layout(block, change)), name="000.tar")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "offsets", [[0, 2, 2, 6], [1, 2, 3, 6], [0, 3, 2, 6], [0, 2, 3, 5], [0, 2, 3, 2**62]]
)
def test_captions_that_are_no_samples_are_told(offsets):
    block, _, _ = make_block()
    length = int.from_bytes(block[:8], "little")
    start, stop = json.loads(block[8 : 8 + length])["text_offsets"]["data_offsets"]
    at = 8 + length + start
    damaged = block[:at] + np.array(offsets, np.int64).tobytes() + block[at + stop - start :]
    with pytest.raises(ValueError, match=AGAIN):
        Reinforcement(memoryview(damaged), name="000.tar")
