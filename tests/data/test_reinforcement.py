"""The reinforcement block: rows come back to their own samples; other tools can read it; damage is told."""

import json

import numpy as np
import pytest
import safetensors.torch
from hypothesis import given
from hypothesis import strategies as st

from pocketclip.data.augment import AugmentSpec, draw, pack, seeded
from pocketclip.data.codec import CODECS
from pocketclip.data.reinforcement import Embeddings, Reinforcement, TeacherRecord, pack_reinforcement


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
    expected = Reinforcement(memoryview(block), name="shard").image_rows("conv", np.array([1]), np.array([2]))
    np.testing.assert_array_equal(values[4 + 2].numpy(), expected[0])


def test_the_header_says_what_was_done_and_what_it_cost():
    block, _, _ = make_block(codec="int8")
    header = Reinforcement(memoryview(block), name="shard").header
    assert (header.config_digest, header.input_sha256, header.codec) == ("config", "input", "int8")
    assert [teacher.name for teacher in header.teachers] == ["conv", "vit"]
    assert header.augment == AugmentSpec()
    assert header.dropped == {"gone": "truncated"}
    assert 0.99 < header.errors["image/conv"].cosine_min < 1.0


def test_the_same_values_give_the_same_bytes():
    assert make_block()[0] == make_block()[0]


@pytest.mark.parametrize("keep", [0, 5, 100, 1200, -1])
def test_a_cut_block_is_told_with_its_shard(keep):
    block, _, _ = make_block()
    with pytest.raises(ValueError, match=r"000\.tar.*run `pocketclip reinforce` again"):
        Reinforcement(memoryview(block[:keep]), name="000.tar")


def test_another_version_is_told():
    block, _, _ = make_block()
    other = block.replace(b'"version":"1"', b'"version":"9"')
    with pytest.raises(ValueError, match="version '9'"):
        Reinforcement(memoryview(other), name="000.tar")


def test_a_table_of_another_shape_is_told():
    block, _, _ = make_block()
    length = int.from_bytes(block[:8], "little")
    layout = json.loads(block[8 : 8 + length])
    layout["image/vit/values"]["shape"][0] //= 2
    layout["image/vit/values"]["shape"][1] *= 2
    text = json.dumps(layout).encode()
    with pytest.raises(ValueError, match="image/vit is of shape"):
        Reinforcement(memoryview(len(text).to_bytes(8, "little") + text + block[8 + length :]), name="shard")
