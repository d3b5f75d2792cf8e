"""The codec of four and a half bits: within its budget, close where it matters, and as docs/formats.md says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketclip.data.codec import decode
from pocketclip.data.codec_error import cosines, target_error
from pocketclip.data.codec_q4 import BASE, SIDES, Basis, Encoder, QuantisedTable, all_levels, levels
from pocketclip.data.tables import Table


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def embeddings(num, *, width, views=2, texts=2, seed=0):
    """Rows like a teacher's: each side around a mean, few strong directions that both share, views that agree."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.standard_normal((width, width)))[0] / np.sqrt(np.arange(1, width + 1))
    shared = rng.standard_normal((num, width))
    mean = rng.standard_normal((2, width)) / np.sqrt(width)

    def side(which, times):
        own = shared[:, None] + rng.standard_normal((num, times, width))
        return unit(mean[which] + own @ axes / 3).reshape(num * times, width)

    return {"image": side(0, views), "text": side(1, texts)}


def encoder_of(rows, *, block=1000):
    def blocks(side):
        return lambda: (rows[side][start : start + block] for start in range(0, len(rows[side]), block))

    return Encoder({side: blocks(side) for side in SIDES})


def parts_of(encoder, side, words):
    """What a reader of one table is given."""
    parts = encoder.parts()
    own = {name.removeprefix(f"{side}/"): table for name, table in parts.items() if name.startswith(side)}
    basis = {name: table for name, table in parts.items() if name.startswith("basis/")}
    return {"levels": parts["levels"], **basis, **own, "values": Table(kind="U16", array=words)}


def table_of(parts):
    return QuantisedTable(parts, basis=Basis(parts))


def through(rows):
    """Rows as a reader gets them, and the bytes that they take."""
    encoder = encoder_of(rows)
    words = {side: encoder.encode(side, rows[side]) for side in SIDES}
    width = rows["image"].shape[1]
    read = {
        side: decode(
            table_of(parts_of(encoder, side, words[side])), np.arange(len(words[side])), embed_dim=width
        )
        for side in SIDES
    }
    num_bytes = sum(array.nbytes for array in words.values())
    return read, num_bytes + sum(table.array.nbytes for table in encoder.parts().values())


def groups_of_32(rows):
    """Plain 4 bits: a scale for each 32 values."""
    groups = rows.reshape(-1, 32)
    scale = np.abs(groups).max(axis=1, keepdims=True) / 7
    return (np.rint(groups / scale) * scale).reshape(rows.shape)


def moved_target(rows, stored, *, views, texts, logit_scale=60.0):
    def first(side, times, of):
        return of[side][::times]

    return target_error(
        image_BD=first("image", views, rows),
        text_BD=first("text", texts, rows),
        stored_image_BD=first("image", views, stored),
        stored_text_BD=first("text", texts, stored),
        logit_scale=logit_scale,
    )[1]


@pytest.mark.parametrize(("num", "views", "texts"), [(60, 2, 6), (250, 10, 3), (120, 30, 6)])
def test_it_moves_the_target_far_less_than_plain_four_bits_for_no_more_bytes(num, views, texts):
    rows = embeddings(num, width=192, views=views, texts=texts)
    stored, num_bytes = through(rows)
    num_values = sum(array.size for array in rows.values())
    plain = {side: groups_of_32(array) for side, array in rows.items()}
    moved = moved_target(rows, stored, views=views, texts=texts)
    moved_plain = moved_target(rows, plain, views=views, texts=texts)
    assert moved_plain > 0.02
    assert moved < 0.5 * moved_plain
    assert (
        num_bytes * 8 / num_values <= 4.6
    )  # as many as groups of 32 with a scale of 16 bits, and its tables


@given(st.integers(1, 60), st.sampled_from([2, 7, 32, 100]), st.integers(1, 8), st.integers(1, 6))
@settings(max_examples=30)
def test_it_never_takes_more_than_its_budget(num, width, views, texts):
    rows = embeddings(num, width=width, views=views, texts=texts)
    _, num_bytes = through(rows)
    num_values = sum(array.size for array in rows.values())
    tables = all_levels().nbytes + 20 * width + 3 * 8 * len(BASE)
    assert num_bytes <= max(4.5 * num_values / 8, 2**15) + tables


def plain_decode(parts, row):
    """A row, decoded by nothing but docs/formats.md."""
    starts, start = {}, 0
    for digits in (2, 3, 4, 5, 6, 8):
        starts[digits] = start
        start += BASE[digits]
    level = parts["levels"].array.tolist()

    def values(words, segments):
        found, word = [], 0
        for digits, count in segments:
            for _ in range(count // digits):
                rest = int(words[word])
                word += 1
                for _ in range(digits):
                    digit = rest % BASE[digits]
                    rest //= BASE[digits]
                    found.append((digit - 32767.5) / 2048 if digits == 1 else level[starts[digits] + digit])
        return found

    basis_segments = parts["basis/segments"].array.tolist()
    scale, basis_scale = parts["scale"].array.tolist(), parts["basis/scale"].array.tolist()
    row_values = values(parts["values"].array[row], parts["segments"].array.tolist())
    decoded = []
    for dimension, mean in enumerate(parts["mean"].array.tolist()):
        basis = values(parts["basis/values"].array[dimension], basis_segments)
        decoded.append(
            mean + sum(value * scale[k] * basis[k] * basis_scale[k] for k, value in enumerate(row_values))
        )
    return decoded


def test_a_reader_written_from_the_formats_page_gets_the_same_rows():
    rows = embeddings(500, width=48)
    encoder = encoder_of(rows)
    seen = set()
    for side in SIDES:
        words = encoder.encode(side, rows[side])
        parts = parts_of(encoder, side, words)
        seen |= {int(digits) for digits, _ in parts["segments"].array}
        read = decode(table_of(parts), np.array([3, 0, 710]), embed_dim=48)
        expected = [plain_decode(parts, row) for row in (3, 0, 710)]
        np.testing.assert_allclose(read, expected, atol=2e-6)
        np.testing.assert_allclose(read, encoder.decode(side, words)[[3, 0, 710]], atol=2e-6)
    assert len(seen) > 3


def test_any_selection_of_rows_decodes_to_the_same_values():
    rows = embeddings(900, width=24, views=3)
    encoder = encoder_of(rows)
    table = table_of(parts_of(encoder, "image", encoder.encode("image", rows["image"])))
    whole = decode(table, np.arange(2700), embed_dim=24)
    chosen = np.random.default_rng(0).integers(0, 2700, 1500)
    np.testing.assert_allclose(decode(table, chosen, embed_dim=24), whole[chosen], atol=1e-6)
    out = np.full((3000, 24), 7.0, np.float32)
    table.decode_into(out, chosen + 300, chosen)
    np.testing.assert_allclose(out[chosen + 300], whole[chosen], atol=1e-6)
    assert (out[:300] == 7.0).all()


def test_rows_may_be_encoded_in_any_parts():
    rows = embeddings(150, width=32)
    encoder = encoder_of(rows)
    whole = encoder.encode("text", rows["text"])
    parts = [encoder.encode("text", rows["text"][start : start + 7]) for start in range(0, 300, 7)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("num", [1, 2, 5])
def test_few_rows_are_stored_well(num):
    rows = embeddings(num, width=32)
    stored, _ = through(rows)
    for side in SIDES:
        assert np.abs(stored[side] - rows[side]).max() < 0.02


def test_rows_that_are_all_the_same_are_their_mean():
    row = unit(np.arange(1.0, 9.0))
    rows = {side: np.tile(row, (5, 1)) for side in SIDES}
    stored, _ = through(rows)
    for side in SIDES:
        np.testing.assert_allclose(stored[side], rows[side], atol=1e-6)


def test_a_dimension_that_nobody_uses_and_one_that_drowns_the_rest_do_no_harm():
    rows = embeddings(300, width=32)
    for side in SIDES:
        rows[side][:, 3] = 0.0
        rows[side][:, 5] += 5.0
        rows[side] = unit(rows[side])
    stored, _ = through(rows)
    for side in SIDES:
        assert np.abs(stored[side] - rows[side]).max() < 0.06
        assert cosines(rows[side], stored[side]).min() > 0.998


@pytest.mark.parametrize("digits", BASE)
def test_a_word_holds_as_many_values_as_fit(digits):
    assert BASE[digits] ** digits <= 65536 < (BASE[digits] + 1) ** digits
    found = levels(digits).astype(np.float64)
    assert (np.diff(found) > 0).all()
    np.testing.assert_allclose(found, -found[::-1], atol=1e-5)


@pytest.mark.parametrize(
    ("digits", "positive"),  # Max (1960), table I
    [
        (8, [0.4528, 1.510]),
        (6, [0.3177, 1.000, 1.894]),
        (4, [0.1284, 0.3881, 0.6568, 0.9424, 1.256, 1.618, 2.069, 2.733]),
    ],
)
def test_levels_are_the_published_optimum(digits, positive):
    found = levels(digits)
    np.testing.assert_allclose(found[len(found) // 2 :], positive, atol=1e-3)


FAULTS = {
    "segments": lambda array: array[::-1].copy(),
    "values": lambda array: array[:, 1:],
    "scale": lambda array: array[1:],
    "basis/values": lambda array: array[:, 1:],
    "basis/scale": lambda array: array[1:],
    "basis/segments": lambda array: array[:1],
}


@pytest.mark.parametrize("part", FAULTS)
def test_parts_that_do_not_fit_together_are_refused(part):
    rows = embeddings(300, width=32)
    encoder = encoder_of(rows)
    parts = parts_of(encoder, "image", encoder.encode("image", rows["image"]))
    parts[part] = Table(kind=parts[part].kind, array=FAULTS[part](parts[part].array))
    with pytest.raises(ValueError, match=r"segments are \[|do not fit"):
        table_of(parts)


@pytest.mark.parametrize("segments", [[[7, 14]], [[4, 6]], [[4, 0]], [[4, -4]], [[0, 4]], [[4, 8], [4, 8]]])
def test_segments_that_mean_nothing_are_refused(segments):
    rows = embeddings(300, width=32)
    encoder = encoder_of(rows)
    parts = parts_of(encoder, "image", encoder.encode("image", rows["image"]))
    parts["segments"] = Table(kind="I32", array=np.array(segments, np.int32))
    with pytest.raises(ValueError, match=r"segments are \["):
        table_of(parts)


def test_bases_are_kept_for_the_next_reading_but_only_the_last_few():
    rows = embeddings(300, width=32)
    encoder = encoder_of(rows)
    parts = parts_of(encoder, "image", encoder.encode("image", rows["image"]))
    bases = [Basis(parts) for _ in range(20)]
    first = bases[0].unpacked()
    assert bases[0].unpacked() is first
    for basis in bases[1:]:
        np.testing.assert_array_equal(basis.unpacked(), first)
    again = bases[0].unpacked()
    assert again is not first
    np.testing.assert_array_equal(again, first)
    assert bases[-1].unpacked() is bases[-1].unpacked()
