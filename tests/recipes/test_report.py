from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from pocketclip.data.index import Dropped, ShardIndex
from pocketclip.data.shard import ShardEntry
from pocketclip.evaluate.metrics import retrieval
from pocketclip.evaluate.results import EvaluateConfig, ModelFacts, Report, SplitFacts, score, split_bootstrap
from pocketclip.recipes.report import Command, ReportContent, Sheet, render, write_report
from pocketclip.recipes.report_content import chance, equal_steps, headline

VOID = {"meta", "link", "img", "br", "hr"}
MODELS = ("teacher_a", "teacher_b", "plain", "reinforced")


def make_report(noise: dict[str, float]) -> Report:
    rng = np.random.default_rng(0)
    config = EvaluateConfig(splits=("test-style", "test-unseen"), resamples=200)
    splits, results = {}, []
    text = np.linalg.qr(rng.normal(size=(64, 64)))[0][:50]
    facts = SplitFacts(
        image_keys=tuple(f"k{i}" for i in range(100)),
        texts=tuple(f"caption {i}" for i in range(50)),
        relevant=tuple((i % 50,) for i in range(100)),
    )
    spread = rng.normal(size=(100, 64))
    for split in config.splits:
        splits[split] = facts
        bootstrap = split_bootstrap(facts, config)
        for model, amount in noise.items():
            found = retrieval(text[np.arange(100) % 50] + amount * spread, text, facts.relevant, name=model)
            results.append(score(found, facts, model=model, split=split, config=config, bootstrap=bootstrap))
    facts_of = {model: ModelFacts(source="x", image_parameters=1000, text_parameters=2000) for model in noise}
    return Report(data="shards", config=config, models=facts_of, splits=splits, results=tuple(results))


@pytest.fixture(scope="module")
def better():
    return make_report({"teacher_a": 0.1, "teacher_b": 0.2, "plain": 0.6, "reinforced": 0.35})


@pytest.fixture
def content(better, tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "sheet.png")
    entry = ShardEntry(file="train/000000.tar", num_samples=123, num_bytes=1, sha256="0" * 64)
    curves = {
        name: [
            {"step": 10, "loss": 4.0},
            {"step": 20, "loss": 3.0},
            {"step": 20, "validation/mean_recall@1": 0.25},
        ]
        for name in MODELS
    }
    return ReportContent(
        title="A demo",
        summary="What was done.",
        report=better,
        plain="plain",
        reinforced="reinforced",
        teachers=("teacher_a", "teacher_b"),
        index=ShardIndex(
            source="emoji",
            splits={"train": (entry,), "test-style": (entry,)},
            dropped=(Dropped(source="a.png", reason="the picture is cut"),),
            licences={"CC-BY-4.0": 246},
            attribution=("Twemoji: CC-BY 4.0 (https://creativecommons.org/licenses/by/4.0/), unchanged.",),
        ),
        curves=curves,
        timings=[("pack", 4.2), ("train", 124.0)],
        sheets=[Sheet(title="Good", path=tmp_path / "sheet.png", caption="found", alt="a red card")],
        facts={"Machine": "2 cores"},
        commands=[Command(purpose="Search.", text="pocketclip search index 'red apple'")],
    )


class Page(HTMLParser):
    """Checks nesting and gathers what tests ask for."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "title"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def test_the_page_is_well_formed_and_loads_nothing(content):
    html = render(content)
    page = Page(html)
    for _, attrs in page.tags:
        for name, value in attrs.items():
            if name in ("src", "srcset", "data", "poster", "background", "xlink:href", "action"):
                assert value.startswith("data:")
    assert all(link["href"] == "data:," for link in page.all("link"))
    assert not page.all("script")
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy


def test_everything_given_is_on_the_page(content):
    page = Page(render(content))
    for text in (
        "A demo",
        "What was done.",
        *MODELS,
        "4.2 s",
        "2 min 04 s",
        "2 min 08 s",
        "a.png: the picture is cut",
        "246",
        "CC-BY-4.0",
        "2 cores",
        "pocketclip search index 'red apple'",
        "Good",
        "found",
        "20-way",
        headline(content.report, plain="plain", reinforced="reinforced"),
    ):
        assert text in page.text, text
    scores = content.report.result("reinforced", "test-unseen").scores
    assert f"{100 * scores['mean_recall@1'].value:.1f}" in page.text
    assert {"href": "https://creativecommons.org/licenses/by/4.0/"} in page.all("a")


def test_readable_without_seeing_it(content):
    page = Page(render(content))
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == 1
    assert [image["alt"] for image in page.all("img")] == ["a red card"]
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.all("svg"))
    assert all(th.get("scope") in ("col", "row", "rowgroup") for th in page.all("th"))
    ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    assert {section["aria-labelledby"] for section in page.all("section")} <= ids
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_pictures_are_put_in_whole(content, tmp_path):
    (image,) = Page(render(content)).all("img")
    data = base64.b64decode(image["src"].removeprefix("data:image/png;base64,"))
    assert data == (tmp_path / "sheet.png").read_bytes()
    assert Image.open(io.BytesIO(data)).size == (int(image["width"]), int(image["height"]))


def test_every_text_is_escaped(content, tmp_path):
    evil = '<script>alert("1")</script>&\''
    names = dict(zip(MODELS, (f"{name}{evil}" for name in MODELS), strict=True))
    report = content.report
    results = tuple(replace(result, model=names[result.model]) for result in report.results)
    report = replace(
        report, models={names[n]: facts for n, facts in report.models.items()}, results=results, data=evil
    )
    page = render(
        ReportContent(
            title=evil,
            summary=evil,
            report=report,
            plain=names["plain"],
            reinforced=names["reinforced"],
            teachers=(names["teacher_a"], names["teacher_b"]),
            index=ShardIndex(
                source=evil,
                splits={evil: ()},
                dropped=(Dropped(source=evil, reason=evil),),
                licences={evil: 1},
                attribution=(f"https://example.org/?a=1&b=2 {evil}",),
            ),
            curves={names[n]: records for n, records in content.curves.items()},
            timings=[(evil, 1.0)],
            sheets=[Sheet(title=evil, path=tmp_path / "sheet.png", caption=evil, alt=evil)],
            facts={evil: evil},
            commands=[Command(purpose=evil, text=evil)],
        )
    )
    assert not Page(page).all("script")
    assert "<script" not in page
    assert 'href="https://example.org/?a=1&amp;b=2"' in page


@pytest.mark.parametrize(
    ("plain", "reinforced", "said", "not_said"),
    [
        (0.6, 0.35, "raised", "no clear difference"),
        (0.35, 0.6, "lowered", "raised"),
        (0.5, 0.5, "no clear difference", "raised"),
    ],
)
def test_the_headline_says_what_the_interval_allows(content, plain, reinforced, said, not_said):
    report = make_report({"plain": plain, "reinforced": reinforced})
    sentence = headline(report, plain="plain", reinforced="reinforced")
    assert said in sentence
    assert not_said not in sentence
    gain = report.compare("reinforced", "plain", split="test-style")
    assert (said == "raised") == (gain.low > 0)
    before, after = (
        report.result(m, "test-style").scores["mean_recall@1"].value for m in ("plain", "reinforced")
    )
    assert f"{before:.1%}" in sentence
    assert f"{after:.1%}" in sentence
    page = Page(render(replace(content, report=report, teachers=())))
    kind = {"raised": "gain", "lowered": "loss"}.get(said, "unclear")
    assert any(div.get("class") == f"verdict {kind}" for div in page.all("div"))
    assert sentence in page.text


def test_a_small_gain_whose_interval_holds_zero_is_no_gain():
    report = make_report({"plain": 0.50, "reinforced": 0.495})
    gain = report.compare("reinforced", "plain", split="test-style")
    assert gain.low <= 0 <= gain.high
    assert "no clear difference" in headline(report, plain="plain", reinforced="reinforced")


def test_steps_are_called_equal_only_if_they_are(content):
    assert equal_steps(content) == "Both students took 20 steps."
    longer = {**content.curves, "reinforced": [{"step": 40, "loss": 1.0}]}
    sentence = equal_steps(replace(content, curves=longer))
    assert "20 without reinforcement, 40 with it" in sentence
    assert sentence in Page(render(replace(content, curves=longer))).text
    assert equal_steps(replace(content, curves={})) == ""


def test_what_is_not_there_leaves_no_empty_section(content):
    bare = replace(content, curves={}, timings=(), sheets=(), facts={}, commands=(), teachers=())
    page = Page(render(replace(bare, index=ShardIndex(source="cards", splits={}))))
    assert {section["aria-labelledby"] for section in page.all("section")} == {"results", "data", "reading"}
    assert "Nothing was left out." in page.text


def test_a_run_that_never_evaluated_or_diverged_still_gives_a_page(content):
    curves = {"plain": [{"step": 1, "loss": float("nan")}], "reinforced": [{"step": 1, "lr": 0.1}]}
    assert "Nothing was recorded" in Page(render(replace(content, curves=curves))).text


def test_faults_name_the_file(content, tmp_path):
    for path, error, message in [
        (tmp_path / "gone.png", FileNotFoundError, r"gone\.png is missing"),
        (tmp_path / "text.png", ValueError, r"text\.png is not a PNG"),
    ]:
        (tmp_path / "text.png").write_text("no picture")
        out = tmp_path / "out" / "report.html"
        with pytest.raises(error, match=message):
            write_report(out, content=replace(content, sheets=[Sheet(title="x", path=path)]))
        assert not out.exists()
    with pytest.raises(ValueError, match="no result of model 'nobody'"):
        render(replace(content, plain="nobody"))


def test_the_same_content_gives_the_same_bytes(content, tmp_path):
    for name in ("one.html", "two.html"):
        write_report(tmp_path / name, content=content)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    assert (tmp_path / "one.html").stat().st_size < 200_000


def test_chance_is_what_a_guess_scores():
    facts = SplitFacts(image_keys=("a", "b", "c"), texts=("x", "y"), relevant=((0,), (0,), (1,)))
    # Image to text: 1/2 each; text to image: 2/3 and 1/3.
    assert chance(facts) == pytest.approx((1 / 2 + (2 / 3 + 1 / 3) / 2) / 2)
