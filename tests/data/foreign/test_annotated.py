"""MSCOCO, DOCCI, DCI, GBC and Recap-COCO, in small files written to their letter."""

from __future__ import annotations

import json

import pytest

from pocketclip.data.foreign.annotated import read_annotated, recognised
from pocketclip.data.foreign.annotation_spec import AnnotationSpec
from pocketclip.data.foreign.candidate import Candidate
from pocketclip.data.foreign.coco import PERMISSIVE
from pocketclip.data.index import Dropped, read_index
from pocketclip.pack import PackConfig, pack

LICENCES = [
    {"url": f"http://creativecommons.org/licenses/{short}/2.0/", "id": number, "name": name}
    for short, number, name in (
        ("by-nc-sa", 1, "Attribution-NonCommercial-ShareAlike License"),
        ("by", 4, "Attribution License"),
        ("by-nd", 6, "Attribution-NoDerivs License"),
    )
]


def coco_image(number, licence, **fields):
    return {
        "license": licence,
        "file_name": f"{number:012d}.jpg",
        "coco_url": f"http://images.cocodataset.org/train2017/{number:012d}.jpg",
        "height": 24,
        "width": 24,
        "date_captured": "2013-11-14 17:02:52",
        "flickr_url": f"http://farm1.staticflickr.com/{number}_z.jpg",
        "id": number,
        **fields,
    }


@pytest.fixture
def coco(tmp_path, encode):
    """Six pictures under licences 1, 4, 6, two captions each but for the last; the fourth picture is not there."""
    pictures = tmp_path / "train2017"
    pictures.mkdir()
    images = [coco_image(number, (1, 4, 6)[number % 3]) for number in range(1, 7)]
    for image in images:
        if image["id"] != 4:
            (pictures / image["file_name"]).write_bytes(encode("JPEG", size=16 + image["id"]))
    annotations = [
        {
            "image_id": number,
            "id": 10 * number + again,
            "caption": f"A picture {number}, said {again} times. ",
        }
        for again in (1, 2)
        for number in range(1, 6)
    ]
    record = {"info": {"year": 2017}, "licenses": LICENCES, "images": images, "annotations": annotations}
    path = tmp_path / "annotations" / "captions_train2017.json"
    path.parent.mkdir()
    path.write_text(json.dumps(record))
    return path


def read(source, **spec):
    """Candidates by key, and what was dropped: source -> reason."""
    items, total = read_annotated(source, AnnotationSpec(**spec), split_of=lambda _: "train", salt="")
    items = list(items)
    assert total in (None, len(items))
    found = {item.key: item for item in items if isinstance(item, Candidate)}
    return found, {item.source: item.reason for item in items if isinstance(item, Dropped)}


def test_coco_puts_a_pictures_captions_together(coco):
    found, dropped = read(coco, format="coco")
    assert sorted(found) == [f"{number:012d}" for number in (1, 2, 3, 5)]
    second = found["000000000002"]
    assert second.captions == ("A picture 2, said 1 times.", "A picture 2, said 2 times.")
    assert second.meta == {
        "licence": "Attribution-NoDerivs License",
        "coco_url": "http://images.cocodataset.org/train2017/000000000002.jpg",
        "flickr_url": "http://farm1.staticflickr.com/2_z.jpg",
    }
    assert dropped["captions_train2017.json: image 6"] == "no caption"
    assert "no such file" in dropped["000000000004.jpg"]


def test_coco_keeps_the_licences_that_were_asked_for_and_counts_the_others(coco):
    found, dropped = read(coco, format="coco", licences=PERMISSIVE)
    assert sorted(found) == [f"{number:012d}" for number in (1, 2, 5)]
    assert (
        "2 pictures are under Attribution-NonCommercial-ShareAlike License"
        in (dropped["captions_train2017.json: licence 1"])
    )


def test_the_permissive_ids_are_those_of_mscoco_38k():
    assert PERMISSIVE == (4, 5, 6)  # CC BY, BY-SA and BY-ND 2.0: arXiv 2508.20691, section 2.5


def test_pack_recognises_coco_and_reports_its_licences(coco, tmp_path):
    out = tmp_path / "out"
    spec = AnnotationSpec(format="coco", licences=PERMISSIVE)
    index = pack(coco, out, config=PackConfig(validation=0, annotated=spec))
    assert index.licences == {"Attribution License": 1, "Attribution-NoDerivs License": 2}
    assert pack(coco, out, config=PackConfig(validation=0, annotated=spec)) == read_index(out)
    with pytest.raises(ValueError, match="made with another annotated"):
        pack(coco, out, config=PackConfig(validation=0))
    assert pack(coco, tmp_path / "all", config=PackConfig(validation=0)).num_samples() == 4


def test_pack_notices_other_annotations_and_other_pictures(coco, tmp_path, encode):
    pack(coco, tmp_path / "out", config=PackConfig(validation=0))
    coco.write_text(coco.read_text().replace("A picture 2", "A photo 2"))
    with pytest.raises(ValueError, match="made with another fingerprint"):
        pack(coco, tmp_path / "out", config=PackConfig(validation=0))
    pack(coco, tmp_path / "two", config=PackConfig(validation=0))
    (tmp_path / "train2017" / "000000000004.jpg").write_bytes(encode("JPEG"))
    with pytest.raises(ValueError, match="made with another fingerprint"):
        pack(coco, tmp_path / "two", config=PackConfig(validation=0))


def test_coco_without_its_pictures_or_captions_says_so(coco, tmp_path):
    (tmp_path / "train2017").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="pictures are not in .*train2017.*--pictures"):
        read(coco, format="coco")
    assert read(coco, format="coco", pictures=str(tmp_path / "elsewhere"))[0]
    record = json.loads(coco.read_text())
    for row in record["annotations"]:
        row["bbox"] = row.pop("caption")
    coco.write_text(json.dumps(record))
    with pytest.raises(
        ValueError, match=r"no caption \(they have image_id, id, bbox\): give captions_train2017"
    ):
        read(coco, format="coco", pictures=str(tmp_path / "elsewhere"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"[]", "it is not a JSON object"),
        (b'{"images": []', "it is not JSON"),
        (b'{"images": []}', "it has no list 'annotations' .it has images."),
        (b"\xff\xfe", "it is not UTF-8"),
    ],
)
def test_a_file_that_is_not_cocos_is_told(tmp_path, data, reason):
    (tmp_path / "train2017").mkdir()
    path = tmp_path / "captions_train2017.json"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"captions_train2017.json: {reason}.*MSCOCO's captions are in"):
        read(path, format="coco")


def test_docci_gives_one_split(tmp_path, encode):
    (tmp_path / "images").mkdir()
    lines = []
    for split, number in (("train", 0), ("train", 1), ("test", 2)):
        name = f"{split}_{number:05d}.jpg"
        (tmp_path / "images" / name).write_bytes(encode("JPEG", size=16 + number))
        text = f"An outdoor view of picture {number}."
        row = {"example_id": name[:-4], "split": split, "image_file": name, "description": text}
        lines.append(json.dumps(row))
    path = tmp_path / "docci_descriptions.jsonlines"
    path.write_text("\n".join([*lines, '{"split": "train"}', ""]))
    assert recognised(path) == AnnotationSpec(format="docci")
    found, dropped = read(path, format="docci")
    assert {key: one.captions for key, one in found.items()} == {
        "train_00000": ("An outdoor view of picture 0.",),
        "train_00001": ("An outdoor view of picture 1.",),
    }
    reason = "no example_id, image_file, description"
    assert dropped == {"docci_descriptions.jsonlines: row 4": reason}
    assert list(read(path, format="docci", split="test")[0]) == ["test_00002"]
    with pytest.raises(ValueError, match="nothing of the split 'val': it has test, train"):
        read(path, format="docci", split="val")
    path.write_text('{"a": 1}\n')
    with pytest.raises(ValueError, match=r"no line of DOCCI's .*: give docci_descriptions.jsonlines"):
        read(path, format="docci")


@pytest.fixture
def dci(tmp_path, encode):
    """A release's folder with one picture: a good mask, one with a label alone, one that is unusable."""
    root = tmp_path / "densely_captioned_images"
    (root / "photos").mkdir(parents=True)
    (root / "complete").mkdir()
    (root / "photos" / "sa_1545038.jpg").write_bytes(encode("JPEG"))
    mask = {"outer_mask": "iVBORw0KGgo", "parent": -1, "requirements": [], "bounds": {}, "area": 9}
    record = {
        "image": "sa_1545038.jpg",
        "short_caption": "A water pump in a street.",
        "extra_caption": "It stands left of the middle.",
        "mask_data": {
            "0": {**mask, "idx": 0, "mask_quality": 0, "label": "pump", "caption": "Old and green."},
            "1": {**mask, "idx": 1, "mask_quality": 1, "label": "tree"},
            "2": {**mask, "idx": 2, "mask_quality": 2},
        },
        "mask_keys": ["1", "0", "2"],
        "summaries": {"base": ["A pump."]},
        "negatives": {},
    }
    (root / "complete" / "1-in.json").write_text(json.dumps(record))
    return root


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        (None, "A water pump in a street."),
        ("extended", "A water pump in a street.\nIt stands left of the middle."),
        ("complete", "A water pump in a street.\nIt stands left of the middle.\ntree\npump: Old and green."),
    ],
)
def test_dci_tells_as_much_as_is_asked_for(dci, text, caption):
    found, dropped = read(dci, format="dci", text=text)
    assert {key: one.captions for key, one in found.items()} == {"sa_1545038": (caption,)}
    assert dropped == {}


def test_dci_lists_what_is_none_of_its_files(dci):
    (dci / "complete" / "2-in.json").write_text('{"image": "x.jpg"}')
    assert read(dci, format="dci")[1] == {"2-in.json": "no short_caption"}
    (dci / "complete" / "1-in.json").unlink()
    with pytest.raises(ValueError, match=r"no file of .* is DCI's \(2-in.json: no short_caption\)"):
        read(dci, format="dci")
    (dci / "complete" / "2-in.json").unlink()
    with pytest.raises(ValueError, match="holds no .json, nor does a folder complete or annotations in it"):
        read(dci, format="dci")


def gbc_record(number, **fields):
    box = {"left": 0.0, "top": 0.0, "right": 1.0, "bottom": 1.0, "confidence": None}
    edges = {"in_edges": [], "out_edges": []}
    whole = [
        {"text": f"A long description of picture {number}.", "label": "detail"},
        {"text": f"A short one of {number}.", "label": "short"},
    ]
    between = [{"text": "The van is beside the dog.", "label": "relation"}]
    return {
        "img_url": f"http://example.org/{number}",
        "img_path": None,
        "original_caption": "shirt",
        "vertices": [
            {"vertex_id": "", "bbox": box, "label": "image", "descs": whole, **edges},
            {"vertex_id": "van", "bbox": box, "label": "relation", "descs": between, **edges},
        ],
        **fields,
    }


@pytest.fixture
def gbc(tmp_path, encode):
    """Records 0 to 2: a picture named by img_path, one found by its address, and one that was never downloaded."""
    (tmp_path / "images" / "00000").mkdir(parents=True)
    for number in range(2):
        (tmp_path / "images" / "00000" / f"{number}.jpg").write_bytes(encode("JPEG", size=16 + number))
    beside = {"url": "http://example.org/1", "status": "success", "key": "1"}
    (tmp_path / "images" / "00000" / "1.json").write_text(json.dumps(beside))
    return tmp_path, [gbc_record(0, img_path="00000/0.jpg"), gbc_record(1), gbc_record(2)]


@pytest.mark.parametrize("name", ["gbc.jsonl", "gbc.parquet"])
@pytest.mark.parametrize(
    ("text", "caption"),
    [
        (None, "A short one of 1."),
        ("long", "A long description of picture 1."),
        ("short-relation", "A short one of 1.\nThe van is beside the dog."),
    ],
)
def test_gbc_finds_its_pictures_by_path_or_address(gbc, name, text, caption):
    folder, records = gbc
    path = folder / name
    if path.suffix == ".parquet":
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        rows = [
            dict(row, vertices=[{**v, "in_edges": ["x"], "out_edges": []} for v in row["vertices"]])
            for row in records
        ]
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    found, dropped = read(path, format="gbc", text=text)
    assert sorted(found) == [key for key in sorted(found) if key.startswith("00000-")]
    assert len(found) == 2
    assert caption in [text for one in found.values() for text in one.captions]
    assert dropped == {f"{name}: row 3": "no picture for http://example.org/2"}


def test_gbc_refuses_other_records(gbc):
    folder, _ = gbc
    (folder / "x.jsonl").write_text('{"img_url": "a"}\nnonsense\n')
    with pytest.raises(ValueError, match="x.jsonl has no record with vertices: give GBC's"):
        read(folder / "x.jsonl", format="gbc")


@pytest.mark.parametrize(
    ("text", "captions"),
    [(None, ("Said anew.",)), ("caption", ("As it was.",)), ("both", ("Said anew.", "As it was."))],
)
@pytest.mark.parametrize("lines", [True, False])
def test_recap_coco_as_json(tmp_path, encode, text, captions, lines):
    (tmp_path / "train2017").mkdir()
    (tmp_path / "train2017" / "000000000007.jpg").write_bytes(encode("JPEG"))
    row = {
        "image_id": 7,
        "coco_url": "http://images.cocodataset.org/train2017/000000000007.jpg",
        "caption": "As it was.",
        "recaption": "Said anew.",
    }
    path = tmp_path / "Full_data.json"
    path.write_text("\n".join(map(json.dumps, [row, {}])) if lines else json.dumps([row, {}]))
    found, dropped = read(path, format="recap-coco", text=text)
    assert found["000000000007"].captions == captions
    assert found["000000000007"].meta == {"image_id": 7}
    assert dropped == {"Full_data.json: row 2": f"no {text or 'recaption'}"}
    path.write_text("[{}]")
    with pytest.raises(ValueError, match="no record of Recap-COCO"):
        read(path, format="recap-coco")


@pytest.mark.parametrize(("text", "caption"), [(None, "Said anew."), ("caption", "As it was.")])
def test_recap_coco_as_parquet_holds_its_pictures(tmp_path, encode, text, caption):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "new_data.parquet"
    image = {"bytes": encode("JPEG"), "path": "000000000007.jpg"}
    row = {"image_id": 7, "caption": "As it was.", "recaption": "Said anew.", "image": image}
    pq.write_table(pa.Table.from_pylist([row]), path)
    found, dropped = read(path, format="recap-coco", text=text)
    assert [one.captions for one in found.values()] == [(caption,)]
    assert dropped == {}
    with pytest.raises(ValueError, match="gives one of its texts, recaption or caption"):
        read(path, format="recap-coco", text="both")


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"format": "flickr"}, "format 'flickr' is none of coco, docci"),
        (
            {"format": "dci", "text": "long"},
            "format dci has no text 'long': it has short, extended, complete",
        ),
        ({"format": "gbc", "licences": (4,)}, "chosen by their ids in MSCOCO: format gbc has none"),
        ({"format": "coco", "split": "train"}, "DOCCI's records name their splits: format coco has none"),
    ],
)
def test_a_spec_that_makes_no_sense_is_told(spec, reason):
    with pytest.raises(ValueError, match=reason):
        AnnotationSpec(**spec)


def test_no_such_source_and_a_folder_without_records(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        read(tmp_path / "x", format="coco")
    with pytest.raises(ValueError, match="is a folder without records: give the file of docci's captions"):
        read(tmp_path, format="docci")


def test_the_command_line_says_what_it_kept(cli, coco, tmp_path):
    ran = cli("pack", coco, tmp_path / "out", "--licences", "permissive", "--validation", "0")
    assert ran.code == 0
    assert "2 under Attribution-NoDerivs License" in ran.out
    assert "licence 1: 2 pictures are under Attribution-NonCommercial-ShareAlike License" in ran.out
    assert cli("pack", coco, tmp_path / "x", "--licences", "free").code == 2
    assert cli("pack", tmp_path, tmp_path / "y", "--text", "short").code == 2
