"""`search`, `list` and `tag` on the command line: what is printed, written, shown, and refused."""

from __future__ import annotations

import csv
import json
import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pocketclip.cli import search

Cli = Callable[..., Any]
NONE = ("--min-score", "none")


@pytest.fixture
def photos(cli: Cli, tmp_path: Path, colour_model: Path) -> Path:
    """An index of 33 pictures of three colours, three of them in a folder of their own."""
    draw = np.random.default_rng(0)
    for number in range(33):
        colour = ("red", "green", "blue")[number % 3]
        base = {"red": (180, 60, 60), "green": (60, 180, 60), "blue": (60, 60, 180)}[colour]
        pixels = np.clip(draw.integers(-60, 60, (6, 6, 3)) + base, 0, 255).astype(np.uint8)
        path = tmp_path / "photos" / ("holiday" if number < 3 else "home") / f"{colour}{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((48, 48)).save(path)
    assert cli("index", tmp_path / "photos", "--out", tmp_path / "p.index", "--model", colour_model).code == 0
    return tmp_path / "p.index"


def names(ran: Any) -> list[str]:
    return [Path(line.split("  ")[2]).name for line in ran.out.splitlines() if line[:2].strip().isdigit()]


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


class TestSearch:
    def test_folder_and_number_of_hits(self, cli: Cli, photos: Path) -> None:
        ran = cli("search", photos, "green", *NONE, "--in", "holiday", "-k", "2")
        assert names(ran) == ["green1.png", "red0.png"] or names(ran)[0] == "green1.png"
        assert len(names(ran)) == 2

    def test_a_folder_may_be_named_from_here(
        self, cli: Cli, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(photos.parent / "photos" / "holiday")
        assert len(names(cli("search", photos, "green", *NONE, "--in", "."))) == 3

    def test_nothing_is_said(self, cli: Cli, photos: Path) -> None:
        ran = cli("search", photos, "red", "--min-score", "1.5")
        assert (ran.code, ran.out.strip()) == (
            0,
            "nothing matches; --min-score none shows the nearest all the same",
        )
        assert "none of the 33 pictures" in cli("search", photos, "red", "--to", "1990").out
        assert json.loads(cli("search", photos, "red", "--to", "1990", "--json").out)["nothing"] is True

    def test_an_excluded_phrase_is_a_minus(self, cli: Cli, photos: Path) -> None:
        as_text = cli("search", photos, "red -blue", *NONE).out
        assert cli("search", photos, "red", *NONE, "--exclude", "blue").out == as_text

    def test_more_like_an_item_and_a_part_of_it(self, cli: Cli, photos: Path) -> None:
        first = json.loads(cli("search", photos, "blue", "-k", "1", "--json", *NONE).out)["hits"][0]
        ran = cli("search", photos, "--like", first["id"], "-k", "5", *NONE)
        assert all(name.startswith("blue") for name in names(ran))
        assert Path(first["path"]).name not in names(ran)
        part = cli(
            "search", photos, "--like", first["id"], "--crop", "0", "0", "0.5", "0.5", "-k", "5", *NONE
        )
        assert all(name.startswith("blue") for name in names(part))

    def test_table_links_and_sheet(self, cli: Cli, photos: Path, tmp_path: Path) -> None:
        out = ("--csv", tmp_path / "t.csv", "--links", tmp_path / "links", "--sheet", tmp_path / "s.png")
        ran = cli("search", photos, "blue", "-k", "4", *NONE, *out)
        assert ran.out.splitlines()[4:] == [
            f"sheet: {tmp_path / 's.png'}",
            f"table: {tmp_path / 't.csv'}",
            f"links: {tmp_path / 'links'}",
        ]
        rows = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
        assert [Path(row["path"]).name for row in rows] == names(ran)
        assert len(list((tmp_path / "links").glob("*.png"))) == 4
        assert size(tmp_path / "s.png")[0] > 300

    def test_open_starts_the_viewer_with_the_best(
        self, cli: Cli, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened: list[Path] = []
        monkeypatch.setattr(search, "open_in_viewer", opened.append)
        ran = cli("search", photos, "blue", "-k", "2", "--open", *NONE)
        assert [path.name for path in opened] == names(ran)[:1]

    def test_without_a_viewer_the_path_is_said(
        self, cli: Cli, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(search.shutil, "which", lambda name: None)
        ran = cli("search", photos, "blue", "--open", *NONE)
        assert ran.code == 1
        assert "yourself" in ran.sentence()

    def test_words_alone_search_the_default_index(
        self, cli: Cli, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("POCKETCLIP_INDEX", os.fspath(photos))
        assert cli("search", "blue", *NONE).out == cli("search", photos, "blue", *NONE).out

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (("red", "--from", "May"), "taken_from is 'May'"),
            (("red", "--near", "91", "0", "1"), "latitude"),
            (("red", "--like", "1", "--picture", "none.jpg"), "none.jpg"),
            (("--like", "99999"), "no item 99999"),
            (("red", "-k", "0"), "k is 0"),
        ],
    )
    def test_what_makes_no_sense_is_one_sentence(
        self, cli: Cli, photos: Path, arguments: tuple[str, ...], named: str
    ) -> None:
        ran = cli("search", photos, *arguments)
        assert ran.code == 1
        assert named in ran.sentence()


def test_a_search_for_words_imports_what_it_needs(run_python: Cli, photos: Path) -> None:
    program = """
import json, sys
from pocketclip.cli import main
assert main() == 0
print(json.dumps(sorted(sys.modules)))
"""
    ran = run_python("-c", program, "search", photos, "blue")
    modules = set(json.loads(ran.out.splitlines()[-1]))
    assert {"pocketclip.cli.search", "pocketclip.search.query"} <= modules
    wasted = {
        "numpy.ma",
        "tqdm",
        "openvino",
        "fastapi",
        "av",
        "pocketclip.cli.train",
        "pocketclip.cli.doctor",
    }
    wasted |= {
        f"pocketclip.search.{name}" for name in ("build", "media", "doctor", "listings", "sheet", "server")
    }
    assert modules & wasted == set()


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo terminals")
class TestTerminal:
    def show(self, photos: Path, *arguments: str, **environment: str) -> str:
        """What a terminal gets."""
        import pty

        outside, inside = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "pocketclip", "search", photos, "blue", *NONE, "-k", "3", *arguments],
            stdin=inside,
            stdout=inside,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"TERM": "xterm-256color", "OMP_NUM_THREADS": "1"} | environment,
        )
        os.close(inside)
        shown = b""
        while select.select([outside], [], [], 60)[0]:
            try:
                part = os.read(outside, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            shown += part
        os.close(outside)
        assert process.wait(60) == 0
        return shown.decode()

    def test_places_are_links(self, photos: Path) -> None:
        shown = self.show(photos, "--preview", "none")
        assert shown.count("\x1b]8;;file:///") == shown.count("\x1b]8;;\x1b\\") == 3
        assert "\x1b_G" not in shown

    def test_pictures_are_shown_where_the_terminal_can(self, photos: Path) -> None:
        assert "\x1b_Ga=T,f=100" in self.show(photos, TERM="xterm-kitty")
        assert "\x1bP0;1q" in self.show(photos, "--preview", "sixel")

    def test_a_dumb_terminal_gets_plain_text(self, photos: Path) -> None:
        assert "\x1b" not in self.show(photos, TERM="dumb")


class TestList:
    def test_albums(self, cli: Cli, photos: Path, tmp_path: Path) -> None:
        (tmp_path / "names.txt").write_text("# colours\nred\ngreen\nblue\n")
        out = (
            "--labels",
            tmp_path / "names.txt",
            "--sheet",
            tmp_path / "s.png",
            "--links",
            tmp_path / "albums",
        )
        ran = cli("list", photos, "albums", "--num", "3", "-k", "2", *out)
        assert {"red: 11", "green: 11", "blue: 11", "  and 9 more"} <= set(ran.out.splitlines())
        assert sorted(path.name[2:] for path in (tmp_path / "albums").iterdir() if path.is_dir()) == [
            *("blue", "green", "red"),
        ]
        assert size(tmp_path / "s.png")[1] > 300
        groups = json.loads(cli("list", photos, "albums", "--num", "3", "--json").out)["groups"]
        assert sorted(len(group["hits"]) for group in groups) == [11, 11, 11]

    def test_duplicates_name_every_copy(self, cli: Cli, photos: Path, colour_model: Path) -> None:
        assert cli("list", photos, "duplicates").out.strip() == "no duplicates"
        source = photos.parent / "photos"
        (source / "copy.png").write_bytes((source / "home" / "red3.png").read_bytes())
        assert cli("index", source, "--out", photos).code == 0
        ran = cli("list", photos, "duplicates")
        assert ran.out.splitlines()[0] == "2 equal files"
        assert ran.out.count("copy.png") == ran.out.count("red3.png") == 1

    def test_tags(self, cli: Cli, photos: Path) -> None:
        assert "no tags" in cli("list", photos, "tags").out
        tagged = json.loads(cli("tag", photos, "--label", "red", "blue", "--json").out)
        assert tagged["pictures"] == 33
        assert 0 < tagged["tags"]["red"] <= 11
        assert json.loads(cli("list", photos, "tags", "--json").out)["tags"] == tagged["tags"]
        found = cli("search", photos, "green", "--tag", "red", "-k", "50", *NONE)
        assert len(names(found)) == tagged["tags"]["red"]
        assert all(name.startswith("red") for name in names(found))

    def test_outliers(self, cli: Cli, photos: Path) -> None:
        assert cli("list", photos, "outliers").code == 0

    @pytest.mark.parametrize(
        ("arguments", "code", "named"),
        [
            (("list", "albums", "-k", "0"), 2, "at least 1"),
            (("list", "albums", "--labels", "empty.txt"), 1, "holds no labels"),
            (("tag", "--labels", "odd.txt"), 1, "not UTF-8"),
            (("tag", "--label", "red", "--most", "0"), 1, "at least 1"),
        ],
    )
    def test_what_makes_no_sense_is_one_sentence(
        self,
        cli: Cli,
        photos: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        arguments: tuple[str, ...],
        code: int,
        named: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("empty.txt").write_text("# nothing\n")
        Path("odd.txt").write_bytes(b"\xff\xfe")
        ran = cli(arguments[0], photos, *arguments[1:])
        assert ran.code == code
        assert named in ran.sentence()
