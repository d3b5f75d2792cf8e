"""A page: what a browser computes from pictures and texts is what Python computes; it asks nobody else for anything."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import random
import shutil
import subprocess
import unicodedata
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import ftfy
import numpy as np
import pytest
from PIL import Image
from tests.conftest import draw_shape
from tests.export.test_run import save_small

from pocketclip.cli import main
from pocketclip.data.picture import decode
from pocketclip.export import (
    ExportConfig,
    Material,
    ParityError,
    check,
    export,
    export_all,
    page_parity,
    site,
)
from pocketclip.export.gallery import write_gallery
from pocketclip.export.probes import PROBE_TEXTS, make_pictures
from pocketclip.export.targets import onnx_target
from pocketclip.export.towers import CannotRunError
from pocketclip.export.visit import BROWSER, Visitor, visit
from pocketclip.runtime import ExportedModel

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

pytestmark = pytest.mark.slow

WEB = Path(__file__).parents[2] / "web"
PAGE = Path(site.__file__).parent / "page"
LABELS = ("red circle", "blue square", "green triangle")
COLOURS = ("red", "green", "blue")
# fmt: off
ODD = [
    *("&amp;", "&eacute", "&EACUTE;", "&#39;", "&#x1F600;", "&notit;", "&#0;", "&#150;", "&#xd800;", "&#1;", "&;"),
    *("&Jscr;", "<b>", "&lt;", "'s", "'LL", "Ａ", "ﬁ", "’", "“", "ſ", "İ", "ΑΣ", "ß", "ŉ", "Ǆ", "𝒳", "١", "½", "ﷺ"),
    *("ｶﾞ", "👩‍🚒", "e\u0301", "\ud83d", "\x1b[31m", "\u2028", "\x85", "\u3000", "\ufeff", "\u0345", "\x00", "\x1c"),
    *("\r\n", "<start_of_text>", "<END_OF_TEXT>"),
]
# fmt: on


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small(tmp_path_factory.mktemp("checkpoint") / "small.safetensors")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of shapes, a file that is no picture, and a hidden one."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "more").mkdir()
    for i, colour in enumerate(COLOURS):
        (folder / f"{colour} circle.png").write_bytes(draw_shape(colour, "circle", seed=i))
        (folder / "more" / f"{colour} square.png").write_bytes(draw_shape(colour, "square", seed=i))
    (folder / "broken.png").write_bytes(b"\x89PNG no more")
    (folder / ".hidden.png").write_bytes(draw_shape("red", "circle"))
    return folder


@pytest.fixture(scope="module")
def folder(checkpoint: Path, pictures: Path) -> Path:
    """An exported page. Do not change it."""
    out = checkpoint.parent / "page"
    material = Material(labels=LABELS, pictures=pictures)
    export(checkpoint, out, config=ExportConfig(target="web"), material=material)
    return out


@pytest.fixture(scope="module")
def visitor(folder: Path) -> Iterator[Visitor]:
    """The page in Chromium, where there is one."""
    pytest.importorskip("playwright")
    try:
        with visit(folder) as opened:
            yield opened
    except CannotRunError as error:
        pytest.skip(str(error))


@pytest.fixture
def copied(folder: Path, visitor: Visitor, tmp_path: Path) -> Path:
    del visitor
    return Path(shutil.copytree(folder, tmp_path / "copied"))


@pytest.fixture(scope="module")
def model(folder: Path) -> ExportedModel:
    """The same towers in Python, as a folder of ONNX."""
    towers = {
        role: onnx_target.open_tower(folder / f"{role}.onnx", precision="fp32") for role in ("image", "text")
    }
    return ExportedModel(folder, towers=towers)


def odd_texts(num: int) -> list[str]:
    """Texts of every script that this Python knows, but for those whose encoding ftfy would guess."""
    rng = random.Random(0)
    texts: list[str] = [*PROBE_TEXTS]
    while len(texts) < num:
        pieces = []
        for _ in range(rng.randrange(1, 20)):
            kind = rng.random()
            char = chr(rng.randrange(0x3000 if kind < 0.8 else 0x20000))
            is_known = unicodedata.category(char) not in ("Cn", "Co", "Cs")
            pieces.append(
                rng.choice(ODD)
                if kind < 0.3
                else rng.choice("ab DE 12'.,<")
                if kind < 0.6
                else char * is_known
            )
        text = "".join(pieces)
        if ftfy.fix_text(text) == ftfy.fix_text(text, fix_encoding=False):
            texts.append(text)
    return texts


def encoded(image: Image.Image, kind: str, **how: object) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **how)
    return data.getvalue()


# ---- the package ----


def test_the_built_page_is_that_of_the_sources():
    if not WEB.is_dir():
        pytest.skip("an installed package has no sources of the page")
    spec = importlib.util.spec_from_file_location("publish_page", WEB / "publish.py")
    assert spec is not None
    assert spec.loader is not None
    publish = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(publish)
    record = json.loads((PAGE / "build.json").read_text())
    assert record["sources"] == publish.sources(), "web/ was changed: run `make web`"
    found = {path.relative_to(PAGE).as_posix() for path in PAGE.rglob("*") if path.is_file()}
    assert found == {*record["files"], "build.json"}
    for name, digest in record["files"].items():
        assert sha256((PAGE / name).read_bytes()).hexdigest() == digest, (
            f"{name} was changed by hand: run `make web`"
        )


def test_the_page_fits_into_a_wheel_and_names_nobody_else():
    sizes = {path: path.stat().st_size for path in PAGE.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < 6_000_000
    html = (PAGE / "index.html").read_text()
    assert "://" not in html.replace("http://localhost:8000", "")


# ---- the same numbers ----


def test_an_export_is_judged_in_the_browser_too(folder: Path, visitor: Visitor):
    manifest = ExportedModel(folder).manifest
    assert manifest.settings["browser"] == visitor.browser
    towers = json.loads(json.dumps(manifest.parity))["towers"]
    in_browser = {row["tower"]: row for row in towers if row["tower"].startswith("browser")}
    assert set(in_browser) == {"browser image", "browser text"}
    assert all(row["max_difference"] < 1e-5 and row["num_probes"] == 14 for row in in_browser.values())


def test_texts_have_the_same_tokens(visitor: Visitor, model: ExportedModel):
    texts = odd_texts(1000)
    found, expected = visitor.tokenizer(texts), model.tokenizer(texts)
    different = [ascii(texts[row]) for row in np.flatnonzero((found != expected).any(axis=1))]
    assert different == []


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_other_programs_can_import_the_tokenizer(folder: Path, model: ExportedModel):
    texts = odd_texts(200)
    script = f"""
        import {{ Tokenizer }} from {json.dumps((folder / "assets" / "core.js").as_uri())};
        import {{ readFileSync }} from "node:fs";
        const texts = JSON.parse(readFileSync(0, "utf8"));
        const file = readFileSync({json.dumps(str(folder / "tokenizer.json"))}, "utf8");
        console.log(JSON.stringify(new Tokenizer(file, 12).encodeAll(texts)));
    """
    done = subprocess.run(
        ["node", "--input-type=module", "-e", script],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=True,
    )
    np.testing.assert_array_equal(json.loads(done.stdout), model.tokenizer(texts))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_pictures_have_the_same_pixels(copied: Path, interpolation: str):
    path = copied / "manifest.json"
    content = json.loads(path.read_text())
    content["preprocess"]["interpolation"] = interpolation
    path.write_text(json.dumps(content))
    rng = np.random.default_rng(0)
    sizes = [
        (32, 32),
        (1, 1),
        (1, 300),
        (31, 47),
        (64, 33),
        (33, 64),
        (20, 15),
        (50, 108),
        (401, 400),
        (1500, 7),
        (60_000, 1),
    ]
    images = [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]
    preprocess = ExportedModel(copied, verify=False).preprocess
    with visit(copied) as opened:
        for image in (*images, *make_pictures(8, seed=1)):
            np.testing.assert_array_equal(opened.pixels(image), preprocess.pixels(image), str(image.size))


def test_files_are_decoded_as_python_decodes_them(visitor: Visitor, model: ExportedModel):
    image = make_pictures(3, seed=5)[1].resize((90, 60))
    faint = image.convert("RGBA")
    faint.putalpha(Image.linear_gradient("L").resize(image.size))
    small = faint.resize((32, 32))
    turned = Image.Exif()
    turned[0x0112] = 6
    files = {
        "grey": encoded(image.convert("L"), "PNG"),
        "palette": encoded(image.convert("P"), "PNG"),
        "transparent": encoded(faint, "PNG"),
        "turned": encoded(image, "PNG", exif=turned),
        "turned JPEG": encoded(image, "JPEG", quality=90, exif=turned),
        "progressive": encoded(image, "JPEG", progressive=True),
        "webp": encoded(image, "WEBP", lossless=True),
    }
    for name, data in files.items():
        expected = model.preprocess.pixels(decode(data, name=name))
        np.testing.assert_array_equal(read_pixels(visitor, data), expected, name)
    # a level of difference where nothing is resized: canvases keep colours multiplied by their transparency
    difference = read_pixels(visitor, encoded(small, "PNG")).astype(int) - model.preprocess.pixels(small)
    assert np.abs(difference).max() <= 1


def read_pixels(visitor: Visitor, data: bytes) -> np.ndarray:
    script = """async (data) => [...await window.pocketclip.pixels(
        new Blob([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))]))]"""
    found = visitor.act(lambda page: page.evaluate(script, base64.b64encode(data).decode()))
    return np.array(found, dtype=np.uint8).reshape(32, 32, 3)


def test_embeddings_agree(visitor: Visitor, model: ExportedModel):
    images, texts = make_pictures(9, seed=77), odd_texts(40)
    np.testing.assert_allclose(visitor.embed_images(images), model.embed_images(images), atol=1e-5)
    np.testing.assert_allclose(visitor.embed_texts(texts), model.embed_texts(texts), atol=1e-5)


@pytest.mark.slow
def test_threads_where_the_server_allows_them(visitor: Visitor, folder: Path, model: ExportedModel):
    assert visitor.facts["threads"] == 1
    with visit(folder, is_isolated=True) as opened:
        assert opened.facts["threads"] > 1
        np.testing.assert_allclose(opened.embed_texts(["a"]), model.embed_texts(["a"]), atol=1e-5)


@pytest.mark.slow
def test_webgpu_agrees_where_there_is_one(visitor: Visitor, folder: Path, model: ExportedModel):
    del visitor
    software = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")
    with visit(folder, backend="auto", flags=software) as opened:
        if opened.facts["backend"] != "webgpu":
            pytest.skip("this Chromium has no software WebGPU")
        images = make_pictures(7, seed=3)
        np.testing.assert_allclose(opened.embed_images(images), model.embed_images(images), atol=1e-3)
        np.testing.assert_allclose(opened.embed_texts(["a dog"]), model.embed_texts(["a dog"]), atol=1e-3)


# ---- as a user ----


def shown(page: Page) -> dict[str, float]:
    """Label -> percent, as the page shows them."""
    page.wait_for_selector("#results li")
    items = [item.inner_text().split("\n") for item in page.locator("#results li").all()]
    return {label: float(percent.removesuffix("%")) for label, percent in items}


def test_the_page_classifies_a_picture_that_is_chosen(visitor: Visitor, model: ExportedModel, pictures: Path):
    path = pictures / "red circle.png"
    image = decode(path.read_bytes(), name="red")

    def deed(page: Page) -> dict[str, float]:
        page.set_input_files("#file", path)
        return shown(page)

    (expected,) = model.classify([image], LABELS)
    found = visitor.act(deed)
    assert list(found) == [LABELS[i] for i in np.argsort(-expected)]
    assert found == pytest.approx(dict(zip(LABELS, 100 * expected, strict=True)), abs=0.06)

    def edit(page: Page) -> dict[str, float]:
        page.fill("#labels", "cat\n\n dog \ncat")
        page.fill("#prompts", "a {}\nthe {} on {}")
        page.wait_for_selector("#results:has(li:nth-child(2)):not(:has(li:nth-child(3)))")
        return shown(page)

    (edited,) = model.classify([image], ["cat", "dog"], templates=["a {}", "the {} on {}"])
    assert visitor.act(edit) == pytest.approx({"cat": 100 * edited[0], "dog": 100 * edited[1]}, abs=0.06)


def test_a_picture_can_be_dropped_and_what_is_none_is_told(visitor: Visitor, pictures: Path):
    drop = """([data, name, type]) => {
        const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([bytes], name, { type }));
        document.querySelector("#stage").dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true }));
    }"""

    def dropped(page: Page, data: bytes, name: str, kind: str) -> str:
        page.reload()
        page.wait_for_selector("#tab-classify")
        page.evaluate(drop, [base64.b64encode(data).decode(), name, kind])
        page.wait_for_selector("#results li, #problem:not([hidden])")
        return page.inner_text("#problem")

    good, bad = (pictures / "red circle.png").read_bytes(), (pictures / "broken.png").read_bytes()
    assert visitor.act(lambda page: dropped(page, good, "a.png", "image/png")) == ""
    said = visitor.act(lambda page: dropped(page, bad, "broken.png", "image/png"))
    assert said.startswith("broken.png cannot be read: it is damaged")
    assert visitor.act(lambda page: dropped(page, b"x", "a.txt", "text/plain")) == "a.txt is not a picture."


def test_the_page_finds_pictures_by_words_and_by_a_picture(
    visitor: Visitor, model: ExportedModel, pictures: Path
):
    names = [
        f"{kind}{colour} {shape}.png"
        for kind, shape in (("", "circle"), ("more/", "square"))
        for colour in COLOURS
    ]
    images = [decode((pictures / name).read_bytes(), name=name) for name in names]

    def search(page: Page, *, words: bool) -> list[str]:
        page.focus("#tab-classify")
        page.keyboard.press("ArrowRight")  # no mouse is needed
        if words:
            page.fill("#text", "red circle")
            page.keyboard.press("Enter")
            page.wait_for_selector("#found:has-text('for these words')")
        else:
            page.set_input_files("#similar-file", pictures / "more" / "blue square.png")
            page.wait_for_selector("#found:has-text('like this picture')")
        return [image.get_attribute("alt") for image in page.locator("#grid img").all()]

    cosines = model.embed_images(images) @ model.embed_texts(["red circle"])[0]
    found = visitor.act(lambda page: search(page, words=True))
    assert sorted(found) == sorted(names)
    ordered = cosines[[names.index(name) for name in found]]
    assert (np.diff(ordered) < 0.01).all()  # as far as eight bits say
    assert visitor.act(lambda page: search(page, words=False))[0] == "more/blue square.png"


def test_the_camera_is_classified_and_its_absence_is_told(visitor: Visitor, folder: Path):
    def start(page: Page) -> str:
        page.reload()
        page.click("#camera")
        page.wait_for_selector("#results li, #problem:not([hidden])")
        return page.inner_text("#problem")

    assert visitor.act(start) == "There is no camera: choose, drop or paste a picture instead."
    with visit(
        folder, flags=("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    ) as opened:
        assert opened.act(start) == ""
        assert opened.act(lambda page: page.inner_text("#camera")) == "Stop the camera"
        opened.act(lambda page: page.click("#camera"))
        assert opened.act(lambda page: page.evaluate("document.querySelector('#video').srcObject")) is None


def test_nothing_outside_the_folder_is_asked_for(visitor: Visitor):
    """The last of those that drive the page."""
    visitor.act(lambda page: page.reload())
    visitor.embed_texts(["a"])
    assert visitor.asked == []


# ---- what must fail ----


@pytest.mark.parametrize(
    "name",
    ["image.onnx", "tokenizer.json", "manifest.json", "assets/ort-wasm.mjs", "assets/ort-wasm.wasm.gz"],
)
def test_a_missing_file_is_named(copied: Path, name: str):
    path = copied / name
    hidden = path.with_name(f"{path.name}.elsewhere")
    sentence = rf"{path.name} is missing beside index.html"
    if name == "manifest.json":  # this program asks for it too
        shutil.copy(path, hidden)
        page = (copied / "assets" / "worker.js").read_text()
        assert "manifest.json" in page
        (copied / "assets" / "worker.js").write_text(page.replace("manifest.json", "manifesto.json"))
        sentence = "manifesto.json is missing"
    else:
        path.rename(hidden)
    with pytest.raises(ValueError, match=sentence), visit(copied):
        pass


def test_a_cut_file_is_told(copied: Path):
    path = copied / "text.onnx"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"text\.onnx has .* bytes and the manifest says"), visit(copied):
        pass


def test_without_webgpu_that_is_said(visitor: Visitor, folder: Path):
    del visitor
    with pytest.raises(ValueError, match="no WebGPU"), visit(folder, backend="webgpu"):
        pass


def test_a_page_that_reads_pictures_otherwise_is_refused(
    checkpoint: Path, visitor: Visitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    del visitor
    spoilt = Path(shutil.copytree(PAGE, tmp_path / "package" / "page"))
    path = next(path for path in spoilt.glob("assets/*.js") if "willReadFrequently" in path.read_text())
    code = path.read_text()
    assert code.count("imageSmoothingEnabled=!1") == 1
    path.write_text(code.replace("imageSmoothingEnabled=!1", "filter=`brightness(0.9)`"))
    monkeypatch.setattr(site, "files", lambda _: tmp_path / "package")
    with pytest.raises(ParityError, match=r"browser image tower, batches of 7") as caught:
        export(checkpoint, tmp_path / "out", config=ExportConfig(target="web"))
    assert caught.value.report is not None
    assert not (tmp_path / "out").exists()


def test_without_a_browser_that_is_said(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from pocketclip.checkpoint import load

    monkeypatch.setenv(BROWSER, str(tmp_path / "no-such-browser"))
    (row,) = export_all(
        load(checkpoint),
        tmp_path,
        targets=["web"],
        precisions=["fp32"],
        config=ExportConfig(num_pictures=7),
        material=Material(),
    )
    assert (row.verdict, row.latency_ms) == ("passed", {})
    assert row.reason.startswith(page_parity.NOT_RUN)
    manifest = ExportedModel(tmp_path / "web-fp32").manifest
    assert str(manifest.settings["browser"]).startswith("not run in a browser: ")


def test_parity_runs_the_page_again(checkpoint: Path, copied: Path):
    report = check(checkpoint, copied)
    assert report.passed
    assert {entry.tower for entry in report.towers} == {"image", "text", "browser image", "browser text"}
    worker = copied / "assets" / "worker.js"
    worker.write_text(f"throw new Error('broken'); {worker.read_text()}")
    report = check(checkpoint, copied)
    assert not report.passed
    assert any(problem.startswith("the page: it does not open") for problem in report.problems)


def test_the_command_says_how_to_look_at_it(
    checkpoint: Path,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv(BROWSER, str(tmp_path / "no-such-browser"))
    out = tmp_path / "out"
    command = ["export", str(checkpoint), str(out), "--pictures", str(pictures)]
    assert main([*command, "--to", "web"]) == 0
    said = capsys.readouterr().out
    assert "the page was not run in a browser" in said
    assert "pictures that cannot be read, 1: broken.png" in said
    assert f"python -m http.server --directory {out}" in said
    assert main(command) != 0
    assert "--pictures is for the page of --to web" in capsys.readouterr().err


def test_a_page_needs_both_towers():
    with pytest.raises(ValueError, match="a page needs image and text"):
        ExportConfig(target="web", towers=("image",))


def test_pictures_that_cannot_be_read_are_told(folder: Path, tmp_path: Path, model: ExportedModel):
    (unreadable,) = json.loads(json.dumps(ExportedModel(folder).manifest.settings["unreadable"]))
    assert unreadable.startswith("broken.png: ")
    with pytest.raises(FileNotFoundError, match="--pictures"):
        write_gallery(tmp_path, tmp_path / "none", model=model)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ValueError, match="holds no pictures"):
        write_gallery(tmp_path, tmp_path, model=model)
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(ValueError, match="none of its 1 pictures can be read"):
        write_gallery(tmp_path, tmp_path, model=model)
