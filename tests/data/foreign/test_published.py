"""Published samples, as an independent encoder writes them: every layout, and every way they can be wrong."""

from __future__ import annotations

import io
import json
import pickle
import zipfile

import numpy as np
import pytest
from tests.data.foreign.test_torch_file import Canary, zipped
from tests.published_sets import (
    columns,
    make_sample,
    members,
    npz,
    rounded,
    unit_rows,
    write_published,
    write_tar,
)

from pocketclip.data.foreign.published import PublishedSample, read_details, read_published
from pocketclip.data.foreign.published_teachers import PUBLISHED_TEACHERS, split_columns
from pocketclip.data.foreign.tars import read_groups
from pocketclip.data.index import Dropped

pytest.importorskip("torch")  # writes the pth.gz


def read_one(path, **options):
    (group,) = read_groups(path)
    assert not isinstance(group, Dropped), group
    return read_published(group, **options)


@pytest.fixture
def read(tmp_path):
    """Writes one sample, files replaced or left out, and reads it."""

    def run(sample=None, *, files=None, options=None, **layout):
        sample = sample or make_sample(0)
        written = members(sample, **layout)
        for extension, data in (files or {}).items():
            written.pop(extension, None)
            if data is not None:
                written[extension] = data
        return read_one(write_tar(tmp_path / "a.tar", [(sample.uid, written)]), **(options or {}))

    return run


@pytest.mark.parametrize("views_as_text", [False, True])
@pytest.mark.parametrize("storage", ["npz", "pth.gz", "both"])
@pytest.mark.parametrize("tag", ["", "_dfn"])
@pytest.mark.parametrize(
    ("generation", "keys"),
    [
        ("v1", ("syn_text",)),
        ("v2", ("syn_text",)),
        ("v2", ("syn_text_b", "syn_text_dfn_mscoco38k", "syn_text")),
    ],
)
def test_every_layout_is_read_to_the_last_bit(read, generation, keys, storage, views_as_text, tag):
    sample = make_sample(3, keys=keys)
    got = read(sample, generation=generation, storage=storage, views_as_text=views_as_text, tag=tag)
    assert isinstance(got, PublishedSample), got
    exact = rounded if storage == "pth.gz" else lambda rows: rows
    assert (got.uid, got.key, got.url, got.sha256) == (sample.uid, sample.uid, sample.url, sample.sha256)
    assert got.captions == (sample.caption,)
    assert got.synthetic == {key: tuple(texts) for key, texts in sample.synthetic.items()}
    assert list(got.synthetic) == sorted(keys)
    assert list(got.views) == json.loads(json.dumps(sample.param_aug))
    assert got.generation == generation
    np.testing.assert_array_equal(got.image_AW, exact(sample.image_emb))
    texts = [sample.text_emb, *(sample.synthetic_emb[key] for key in sorted(keys))]
    np.testing.assert_array_equal(got.text_TW, exact(np.concatenate(texts)))
    assert got.num_ground_truth == 1


def test_npz_wins_where_both_are_there(read):
    sample, other = make_sample(0), make_sample(1)
    files = {"pth.gz": members(other, storage="pth.gz")["pth.gz"]}
    np.testing.assert_array_equal(read(sample, files=files).image_AW, sample.image_emb)


def test_the_teachers_columns_by_generation():
    rows = unit_rows(np.random.default_rng(0), 4)
    for generation, names, scales in (
        ("v1", ["OpenAI-ViT-L-14", "DataComp-XL-ViT-L-14"], [100.0, 100.0]),
        ("v2", ["DFN2B-CLIP-ViT-L-14", "DFN2B-CLIP-ViT-L-14-39B"], [70.0, 60.0]),
    ):
        teachers = PUBLISHED_TEACHERS[generation]
        assert [teacher.name for teacher in teachers] == names
        assert [teacher.logit_scale for teacher in teachers] == scales
        for got, expected in zip(split_columns(rows, teachers), columns(rows), strict=True):
            np.testing.assert_array_equal(got, expected)
    with pytest.raises(ValueError, match=r"100 columns where the teachers have 768 \+ 768"):
        split_columns(rows[:, :100], teachers)


def test_keys_are_chosen_by_regular_expression(read):
    sample = make_sample(0, keys=("syn_text_a", "syn_text_b", "other_captions"))
    got = read(sample, generation="v2")
    assert list(got.synthetic) == ["syn_text_a", "syn_text_b"]
    got = read(sample, generation="v2", options={"synthetic": "^syn_text_b$"})
    assert list(got.synthetic) == ["syn_text_b"]
    np.testing.assert_array_equal(got.text_TW[1:], sample.synthetic_emb["syn_text_b"])
    got = read(sample, generation="v2", options={"synthetic": "nothing"})
    assert (got.synthetic, len(got.text_TW), got.generation) == ({}, 1, None)


def test_a_key_alone_has_the_rows_of_the_text_embeddings(read):
    """The rule: rows behind the ground truth belong to the chosen key, whatever `KEY_emb` says."""
    sample = make_sample(0)
    rows = unit_rows(np.random.default_rng(9), 6)
    arrays = {
        "image_emb": sample.image_emb,
        "text_emb": rows,
        "syn_text_emb": sample.synthetic_emb["syn_text"],
    }
    np.testing.assert_array_equal(read(sample, files={"npz": npz(arrays)}).text_TW, rows)


def test_whose_rows_they_are_must_be_said_where_two_keys_share_them(read):
    sample = make_sample(0, keys=("syn_text", "syn_text_b"))
    arrays = {"image_emb": sample.image_emb, "text_emb": unit_rows(np.random.default_rng(9), 6)}
    got = read(sample, generation="v2", files={"npz": npz(arrays)})
    assert "of which of syn_text, syn_text_b it does not say" in got.reason
    chosen = read(sample, generation="v2", files={"npz": npz(arrays)}, options={"synthetic": "^syn_text$"})
    np.testing.assert_array_equal(chosen.text_TW, arrays["text_emb"])


def test_without_a_caption_there_is_still_the_row_of_one(read):
    for generation in ("v1", "v2"):
        got = read(make_sample(0), generation=generation, with_caption=False)
        assert (got.captions, got.num_ground_truth, got.generation) == ((), 1, generation)


def test_empty_synthetic_captions_go_with_their_rows(read):
    sample = make_sample(0)
    sample.synthetic["syn_text"][1] = " "
    sample.synthetic["syn_text"][4] = ""
    got = read(sample)
    assert got.synthetic == {"syn_text": tuple(sample.synthetic["syn_text"][i] for i in (0, 2, 3))}
    np.testing.assert_array_equal(got.text_TW[1:], sample.synthetic_emb["syn_text"][[0, 2, 3]])


def test_several_ground_truth_captions_in_the_json_have_a_row_each(read):
    sample = make_sample(0)
    sample.text_emb = unit_rows(np.random.default_rng(5), 3)
    sample.rest = {"texts": ["one", "two", "two"], "licence": "CC0", "score": float("nan")}
    got = read(sample, generation="v2", with_caption=False)
    assert (got.captions, got.num_ground_truth) == (("one", "two", "two"), 3)
    assert got.meta == {"licence": "CC0", "score": None}


def test_the_picture_is_taken_along_in_any_format(read):
    sample = make_sample(0)
    assert read(sample, with_image=True).image == sample.image
    assert read(sample).image is None
    for extension in ("png", "jpeg", "webp", "JPG"):
        assert read(sample, files={extension: b"picture"}).image == b"picture"


def test_the_uid_is_the_jsons_else_the_tars(read):
    assert read(files={"json": None}).uid == make_sample(0).uid
    assert read(files={"json": b'{"uid": "another.uid"}'}).uid == "another.uid"
    assert read(files={"json": b'{"uid": "another.uid"}'}).key.startswith("another-uid-")
    got = read(files={"url.txt": None, "json": b'{"url": " https://example.org/a "}'})
    assert got.url == "https://example.org/a"


def test_details_come_without_the_arrays(tmp_path):
    path = write_published(tmp_path / "a.tar", [make_sample(0), make_sample(1)])
    groups = list(read_groups(path, only=("json", "url.txt")))
    assert [read_details(group) for group in groups] == [
        (sample.uid, sample.url, sample.sha256) for sample in (make_sample(0), make_sample(1))
    ]
    assert all(group.data("npz") == b"" for group in groups)


def arrays_without(*names, **changed):
    arrays = {**make_sample(0).arrays("v1"), **changed}
    return npz({name: array for name, array in arrays.items() if name not in names})


def wide(rows, columns):
    return np.ones((rows, columns), np.float32)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"paug.json": None}, "no augmentation parameters"),
        ({"npz": None}, "no embeddings"),
        ({"paug.json": b"{}"}, "param_aug is no list of views"),
        ({"paug.json": b'{"param_aug": []}'}, "param_aug is no list of views"),
        ({"paug.json": b'{"param_aug": "[["}'}, "is a text that is not JSON"),
        (
            {"paug.json": b'{"param_aug": [[[0,0,1,1],null]]}'},
            "paug.json has 1 views and npz embeddings of 3",
        ),
        ({"paug.json": b"\xff"}, "paug.json: it is not UTF-8"),
        ({"syn.json": b"["}, "syn.json: it is not JSON"),
        ({"syn.json": b'{"syn_text": "one"}'}, "syn_text is no list of texts"),
        ({"syn.json": b'{"syn_text": [1]}'}, "syn_text is no list of texts"),
        ({"txt": b"\xff"}, "txt: the caption is not UTF-8"),
        ({"json": b"7"}, "json: it is not a JSON object"),
        ({"npz": b"not a zip"}, "npz: it is damaged"),
        ({"npz": b""}, "npz: it is damaged"),
        ({"npz": arrays_without("image_emb")}, "npz has no image_emb (it has text_emb)"),
        ({"npz": arrays_without("text_emb")}, "npz has no text_emb"),
        (
            {"npz": arrays_without(text_emb=wide(5, 1536))},
            "npz has 4 rows for the 5 synthetic captions syn_text",
        ),
        ({"npz": arrays_without(text_emb=wide(1, 1536))}, "npz has no rows for the 5 synthetic captions"),
        ({"npz": arrays_without(text_emb=wide(6, 768))}, "has 1536 columns for views, 768 for captions"),
        (
            {"npz": arrays_without(text_emb=wide(1, 8), syn_text_emb=wide(5, 9))},
            "different numbers of columns",
        ),
        ({"npz": arrays_without(image_emb=np.ones(1536, np.float32))}, "image_emb has the shape [1536]"),
        ({"npz": arrays_without(image_emb=wide(0, 1536))}, "image_emb has the shape [0, 1536]"),
        (
            {"npz": arrays_without(image_emb=np.full((3, 1536), np.nan))},
            "image_emb has values that are not finite",
        ),
        (
            {"npz": arrays_without(text_emb=np.full((6, 1536), np.inf))},
            "text_emb has values that are not finite",
        ),
        ({"npz": arrays_without(image_emb=np.ones((3, 1536), np.int64))}, "is of type int64"),
        ({"npz": arrays_without(image_emb=np.array([None], object))}, "image_emb.npy is of type object"),
        (
            {"npz": arrays_without("image_emb", image_emb_a=wide(3, 4), image_emb_b=wide(3, 4))},
            "say by its tag",
        ),
        ({"npz": None, "pth.gz": b"\x1f\x8b damaged"}, "pth.gz: it is damaged"),
        (
            {"npz": None, "pth.gz": members(make_sample(0), storage="pth.gz")["pth.gz"][:-40]},
            "pth.gz: it is damaged",
        ),
    ],
)
def test_a_sample_that_is_wrong_is_dropped_with_its_reason(read, files, reason):
    got = read(files=files)
    assert isinstance(got, Dropped)
    assert reason in got.reason
    assert got.source == f"a.tar: {make_sample(0).uid}"


def test_a_tag_chooses_among_arrays(read):
    one, other = make_sample(0), make_sample(1)
    arrays = {**one.arrays("v1", tag="_one"), **other.arrays("v1", tag="_other")}
    for sample, tag in ((one, "_one"), (other, "_other")):
        got = read(files={"npz": npz(arrays)}, options={"tag": tag})
        np.testing.assert_array_equal(got.image_AW, sample.image_emb)
    assert "has no image_emb_third" in read(files={"npz": npz(arrays)}, options={"tag": "_third"}).reason


def test_code_in_an_npz_or_a_pth_gz_is_not_run(read, tmp_path):
    import gzip

    canary = tmp_path / "ran"
    program = pickle.dumps({"image_emb": Canary(canary)}, protocol=2)
    got = read(files={"npz": None, "pth.gz": gzip.compress(zipped(program))})
    assert "it names posix.mkdir" in got.reason
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("image_emb.npy", program)
    assert "npz: the magic string is not correct" in read(files={"npz": file.getvalue()}).reason
    np.save(file := io.BytesIO(), np.array([Canary(canary)], object), allow_pickle=True)
    with zipfile.ZipFile(packed := io.BytesIO(), "w") as archive:
        archive.writestr("image_emb.npy", file.getvalue())
    assert "npz: image_emb.npy is of type object" in read(files={"npz": packed.getvalue()}).reason
    assert not canary.exists()


def test_an_npz_whose_header_claims_more_than_it_has_is_refused(read):
    data = b"\x93NUMPY\x01\x00"
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 1536), }"
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        archive.writestr("image_emb.npy", data + len(header).to_bytes(2, "little") + header + bytes(64))
    assert "image_emb.npy has 64 bytes for a shape of" in read(files={"npz": file.getvalue()}).reason


def test_arrays_of_any_float_and_order_are_read(read):
    sample = make_sample(0)
    for rows in (
        sample.image_emb.astype(np.float64),
        np.asfortranarray(sample.image_emb),
        sample.image_emb.astype(">f4"),
    ):
        got = read(files={"npz": npz({**sample.arrays("v1"), "image_emb": rows})})
        np.testing.assert_array_equal(got.image_AW, sample.image_emb)


def test_an_npz_or_gzip_that_unpacks_to_too_much_is_refused(read, monkeypatch):
    import gzip

    monkeypatch.setattr("pocketclip.data.foreign.published.MAX_BYTES", 10_000)
    assert "npz: its arrays have more than" in read(files={"npz": npz({"image_emb": wide(30, 1536)})}).reason
    assert (
        "pth.gz: it has more than" in read(files={"npz": None, "pth.gz": gzip.compress(bytes(20_000))}).reason
    )


def test_a_cut_tar_keeps_its_whole_samples(tmp_path):
    samples = [make_sample(number) for number in range(3)]
    path = write_published(tmp_path / "a.tar", samples)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    read = [group if isinstance(group, Dropped) else read_published(group) for group in read_groups(path)]
    whole = [one.uid for one in read if isinstance(one, PublishedSample)]
    assert whole == [sample.uid for sample in samples[: len(whole)]]
    assert len(whole) >= 1
    assert "cut" in read[-1].reason
