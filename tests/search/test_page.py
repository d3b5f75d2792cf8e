"""The page in a real Chromium: words, keys, pictures dropped and pasted, the large view, phones, what readers hear."""

from __future__ import annotations

import base64
import os
import re
import shutil
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from tests.search.served import build, png, running

from pocketclip.search import index

sync_api = pytest.importorskip("playwright.sync_api", reason="driving the page needs playwright")
CHROMIUM = os.environ.get("POCKETCLIP_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
CHECKS = Path(__file__).with_name("page_checks.js")
FIRST = "document.querySelector('.tile a')?.getAttribute('aria-label').startsWith('{}')"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path(CHROMIUM).is_file(), reason=f"no Chromium at {CHROMIUM}"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of the browser's pipes
]

Open = Callable[..., "sync_api.Page"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, colour_model: Path) -> Path:
    """An index of 240 pictures. Do not change it."""
    return build(tmp_path_factory.mktemp("page"), colour_model, num=240)


@pytest.fixture(scope="module")
def address(built: Path) -> Generator[str, None, None]:
    with running(built) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Generator[sync_api.Browser, None, None]:
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: sync_api.Browser, address: str) -> Generator[Open, None, None]:
    """Opens the page; at the end nothing may have gone wrong in it."""
    wrong: list[str] = []
    expected: list[str] = []
    contexts = []

    def note(message: sync_api.ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not (expected and expected[-1] in message.text):
            wrong.append(message.text)

    def opened(query: str = "", *, base: str = "", trouble: str = "", **options) -> sync_api.Page:
        expected.extend([trouble] if trouble else [])
        context = browser.new_context(**({"viewport": {"width": 1200, "height": 800}} | options))
        contexts.append(context)
        page = context.new_page()
        page.add_init_script(path=CHECKS)
        page.set_default_timeout(15_000)
        page.on("console", note)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto((base or address) + query)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def first_names(page: sync_api.Page, num: int = 3) -> list[str]:
    """Colours of the first tiles."""
    page.wait_for_selector(".tile img.there")
    labels = page.locator(".tile a").evaluate_all(
        "links => links.map((link) => link.getAttribute('aria-label'))"
    )
    return [label.split()[0] for label in labels[:num]]


def until(page: sync_api.Page, expression: str) -> None:
    """Waits; not by the browser's own means, which the page's policy forbids."""
    deadline = time.monotonic() + 15
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(20)


def test_results_follow_what_is_typed(opened: Open):
    page = opened()
    until(page, "document.getElementById('summary').textContent === '240 pictures'")
    page.keyboard.press("/")
    page.keyboard.type("a red thing", delay=30)
    until(page, FIRST.format("red"))
    assert first_names(page) == ["red"] * 3
    assert page.url.endswith("?q=a+red+thing")
    page.keyboard.press("Enter")
    page.fill("#words", "blue")
    until(page, FIRST.format("blue"))
    page.go_back()
    until(page, FIRST.format("red"))
    assert page.input_value("#words") == "a red thing"


def test_an_address_holds_all_that_is_looked_for(opened: Open):
    page = opened("?q=green&folder=2021&min=0.3&unique=1")
    assert first_names(page, 1) == ["green"]
    assert page.input_value("#f-folder") == "2021"
    assert page.input_value("#min-score") == "0.3"
    assert page.is_checked("#unique")
    assert page.locator("#num-filters").inner_text() == "1"


def test_keys_lead_through_the_grid(opened: Open):
    page = opened("?q=red&min=0")
    page.wait_for_selector(".tile")
    focused = "Number(document.activeElement.closest('.tile')?.getAttribute('aria-posinset') ?? 0)"
    page.focus("#words")
    page.keyboard.press("ArrowDown")
    assert page.evaluate(focused) == 1
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focused) == 3
    box = page.evaluate("checks.focusedBox()")
    page.keyboard.press("ArrowDown")
    below = page.evaluate("checks.focusedBox()")
    assert below["top"] > box["top"]
    assert abs(below["left"] - box["left"]) < 260
    page.keyboard.press("ArrowUp")
    assert page.evaluate(focused) == 3
    for _ in range(25):
        page.keyboard.press("ArrowDown")
    box = page.evaluate("checks.focusedBox()")
    assert box["top"] >= 0
    assert box["bottom"] <= 801
    page.keyboard.press("Home")
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.id") == "words"


def test_a_picture_opens_and_closes(opened: Open):
    page = opened("?q=blue&min=0")
    page.wait_for_selector(".tile")
    page.focus("#words")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector("#viewer[open] img.sharp.there")
    assert "item=" in page.url
    assert page.locator("#viewer-name").inner_text().startswith("blue")
    assert "px" in page.locator("#facts").inner_text()
    name = page.locator("#viewer-name").inner_text()
    page.keyboard.press("ArrowRight")
    until(page, f"document.getElementById('viewer-name').textContent !== {name!r}")
    page.wait_for_selector("#viewer[open] img.sharp.there")
    page.keyboard.press("Escape")
    page.wait_for_selector("#viewer", state="hidden")
    assert "item=" not in page.url
    assert page.evaluate("document.activeElement.closest('.tile')?.getAttribute('aria-posinset')") == "2"


def test_more_like_this(opened: Open):
    page = opened("?q=white&min=0")
    page.wait_for_selector(".tile")
    page.focus("#words")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("m")
    page.wait_for_selector("#chip:not([hidden]) img")
    until(page, "location.search.includes('like=')")
    assert first_names(page) == ["white"] * 3
    page.click("#chip-remove")
    until(page, "document.getElementById('summary').textContent === '240 pictures'")


def test_a_part_is_searched_for_by_pointer_and_by_keys(opened: Open):
    page = opened("?q=green&min=0")
    page.locator(".tile a").first.click()
    page.wait_for_selector("#viewer[open] img.sharp.there")
    page.keyboard.press("c")
    page.wait_for_selector(".crop-box")
    assert page.evaluate("document.activeElement.className") == "crop-box"
    area = page.locator(".crop-area").bounding_box()
    assert area is not None
    page.mouse.move(area["x"] + 2, area["y"] + 2)
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"] / 2, area["y"] + area["height"] / 2, steps=4)
    page.mouse.up()
    label = page.locator(".crop-box").get_attribute("aria-label")
    assert re.search(r": [0-4] to (49|50|51) percent across", label or "")
    page.keyboard.press("ArrowRight")
    assert page.locator(".crop-box").get_attribute("aria-label") != label
    page.keyboard.press("Enter")
    until(page, "/crop=0\\.\\d+/.test(decodeURIComponent(location.search))")
    assert first_names(page) == ["green"] * 3


def send(page: sync_api.Page, how: str, colour: str) -> None:
    """Drops or pastes a picture."""
    data = base64.b64encode(png(colour, size=(300, 200))).decode()
    page.evaluate("([how, data]) => checks.carry(how, data, 'query.png')", [how, data])


@pytest.mark.parametrize("how", ["paste", "drop"])
def test_a_picture_is_pasted_or_dropped(opened: Open, how: str):
    page = opened("?min=0")
    page.wait_for_selector(".tile")
    send(page, how, "green")
    page.wait_for_selector("#chip:not([hidden]) img")
    until(page, FIRST.format("green"))
    assert page.locator("#drop").is_hidden()
    page.fill("#words", "red")
    page.wait_for_selector("#weight-tool", state="visible")
    page.evaluate("checks.slide('weight', 1)")
    until(page, FIRST.format("red"))
    page.reload()  # the picture is not kept, and the page says so by its box
    page.wait_for_selector("#chip", state="hidden")
    assert first_names(page, 1) == ["red"]


def test_a_picture_is_picked(opened: Open, tmp_path: Path):
    page = opened("?min=0")
    (tmp_path / "x.png").write_bytes(png("blue"))
    page.set_input_files("#file", tmp_path / "x.png")
    until(page, FIRST.format("blue"))


def test_only_what_is_near_the_screen_exists(opened: Open):
    page = opened("?q=red&min=0")
    page.wait_for_selector(".tile")
    for _ in range(30):
        page.mouse.wheel(0, 2500)
        page.wait_for_timeout(40)
    until(page, "document.getElementById('summary').textContent.startsWith('240 pictures of 240')")
    assert page.locator(".tile").count() < 150
    last = page.locator(".tile").last
    assert last.get_attribute("aria-posinset") == "240"
    assert last.get_attribute("aria-setsize") == "240"


def test_rows_fill_the_width_and_nothing_moves(opened: Open):
    page = opened()
    page.wait_for_selector(".tile")
    boxes = "checks.tileBoxes()"
    before = page.evaluate(boxes)
    page.wait_for_selector(".tile img.there")
    page.wait_for_timeout(300)
    assert page.evaluate(boxes) == before
    width = page.locator("#grid").bounding_box()
    assert width is not None
    rows: dict[float, float] = {}
    for _, top, right in before:
        rows[top] = max(rows.get(top, 0), right)
    for top in sorted(rows)[:-1]:
        assert rows[top] == pytest.approx(width["x"] + width["width"], abs=1.5)


def test_selected_pictures_are_exported(opened: Open):
    page = opened("?q=red&min=0")
    page.wait_for_selector(".tile")
    page.focus("#words")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("x")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    assert page.locator("#num-selected").inner_text() == "2 pictures selected"
    with page.expect_download() as download:
        page.click("#export-csv")
    lines = Path(download.value.path()).read_text().splitlines()
    assert lines[0].startswith("rank,score,id,name")
    assert [line.split(",")[3].split()[0] for line in lines[1:]] == ["red", "red"]
    with page.expect_download() as download:
        page.click("#export-json")
    assert '"name": "red' in Path(download.value.path()).read_text()
    page.click("#clear-selection")
    assert page.locator("#selection").is_hidden()


def test_filters(opened: Open):
    page = opened()
    page.wait_for_selector(".tile")
    page.click("#show-filters")
    assert page.get_attribute("#show-filters", "aria-expanded") == "true"
    page.fill("#f-folder", "2020")
    page.keyboard.press("Enter")
    until(page, "document.getElementById('summary').textContent === '80 pictures with these filters'")
    page.fill("#f-folder", "nowhere")
    page.keyboard.press("Enter")
    page.wait_for_selector("#message:not([hidden])")
    assert "No picture passes" in page.locator("#message-title").inner_text()
    page.click("#message-button")
    until(page, "document.getElementById('summary').textContent === '240 pictures'")


def test_nothing_that_matches_is_said(opened: Open):
    page = opened("?q=red&min=1")
    page.wait_for_selector("#message:not([hidden])")
    assert "Nothing here looks like “red”" in page.locator("#message-title").inner_text()
    page.click("#message-button")
    assert first_names(page, 1) == ["red"]


def test_a_question_without_sense_is_told(opened: Open, address: str):
    page = opened("?q=red&folder=x", trouble="422")
    page.wait_for_selector("#message:not([hidden])")
    page.route(
        "**/api/search*",
        lambda route: route.fulfill(status=422, body='{"status": 422, "message": "say more"}'),
    )
    page.fill("#words", "blue")
    until(page, "document.getElementById('message-text').textContent === 'Say more.'")


def test_dark_follows_the_system_and_the_switch(opened: Open):
    paper = "getComputedStyle(document.documentElement).backgroundColor"
    page = opened(color_scheme="dark")
    dark = page.evaluate(paper)
    assert page.get_attribute("#theme", "aria-pressed") == "true"
    page.click("#theme")
    light = page.evaluate(paper)
    assert light != dark
    page.reload()
    assert page.evaluate(paper) == light
    assert opened(color_scheme="light").evaluate(paper) == light


def test_on_a_phone(opened: Open):
    page = opened(
        viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True, device_scale_factor=2
    )
    page.wait_for_selector(".tile img.there")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.querySelector('.tile').getBoundingClientRect().top < 260")
    page.tap(".tile a")
    page.wait_for_selector("#viewer[open] img.sharp.there")
    assert page.evaluate("document.getElementById('viewer').scrollWidth <= innerWidth")
    shown = page.evaluate("checks.shownPicture()")
    assert shown["width"] <= 390
    assert shown["width"] / shown["height"] == pytest.approx(shown["aspect"], rel=0.02)
    page.tap("#more-like")
    until(page, "location.search.includes('like=')")
    page.tap("#show-filters")
    box = page.locator("#filters form").bounding_box()
    assert box is not None
    assert box["y"] + box["height"] == pytest.approx(844, abs=2)
    small = page.evaluate("checks.small()")
    assert small == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_has_a_name_and_can_be_read(opened: Open, scheme: str):
    page = opened("?q=red&like=1&min=0", color_scheme=scheme)
    page.wait_for_selector(".tile")
    page.click("#show-filters")
    page.wait_for_timeout(300)
    assert page.evaluate("checks.nameless()") == []
    assert page.evaluate("checks.faint()") == []
    page.keyboard.press("Escape")
    page.locator(".tile a").first.click()
    page.wait_for_selector("#viewer[open] img.sharp.there")
    assert page.evaluate("checks.nameless()") == []
    assert page.evaluate("checks.faint()") == []
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(ids) == len(set(ids))
    described = page.evaluate("checks.named()")
    assert set(described) <= set(ids)
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.locator("h1, h2").count() > 0


def test_the_focus_can_be_seen(opened: Open):
    page = opened("?q=red&min=0")
    page.wait_for_selector(".tile")
    page.focus("body")
    seen = set()
    for _ in range(14):
        page.keyboard.press("Tab")
        shown, name = page.evaluate("checks.focus()")
        assert shown or name == "BODY", name
        seen.add(name)
    assert {"words", "pick", "show-filters", "theme"} <= seen


def test_without_motion(opened: Open):
    page = opened(reduced_motion="reduce")
    page.wait_for_selector(".tile img")
    assert page.evaluate("getComputedStyle(document.querySelector('.tile img')).transitionDuration") in (
        "0s",
        "",
    )


def test_the_help_and_the_interface(opened: Open, address: str):
    page = opened()
    page.wait_for_selector(".tile")
    page.keyboard.press("?")
    page.wait_for_selector("#help[open]")
    page.click("#help a")
    page.wait_for_selector("section h2 code")
    assert "/api/search" in page.locator("#paths").inner_text()


def test_new_pictures_appear(opened: Open, tmp_path: Path, colour_model: Path):
    path = build(tmp_path, colour_model, num=20)
    with running(path) as address:
        page = opened("?q=blue&min=0", base=address)
        until(page, "document.getElementById('summary').textContent.startsWith('20 pictures')")
        page.wait_for_timeout(800)
        (tmp_path / "pictures" / "sky.png").write_bytes(png("blue", size=(90, 60)))
        index([tmp_path / "pictures"], path)
        until(page, "document.getElementById('summary').textContent.startsWith('21 pictures')")
        page.wait_for_selector(".tile a[aria-label^='sky.png']")
        assert "Indexing" in page.locator("#progress-text").inner_text()
        page.close()


def test_a_server_that_has_gone_is_told(browser: sync_api.Browser, tmp_path: Path, colour_model: Path):
    with running(build(tmp_path, colour_model, num=8)) as address:
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector(".tile")
    until(page, "document.getElementById('progress').classList.contains('trouble')")
    page.fill("#words", "red")
    page.wait_for_selector("#message:not([hidden])")
    assert "cannot be reached" in page.locator("#message-title").inner_text()
    page.close()
