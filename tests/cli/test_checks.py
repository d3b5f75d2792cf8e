"""`pocketclip verify` and `pocketclip inspect`: exit codes, lists, sheets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.reinforced_folders import write_reinforced

from pocketclip.data.augment import AugmentSpec

Cli = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path, make_samples: Callable[..., Any]) -> Path:
    return write_reinforced(tmp_path / "data", make_samples(12), spec=AugmentSpec())


def test_a_whole_folder_is_exit_code_0(cli: Cli, folder: Path) -> None:
    ran = cli("verify", folder, "--workers", "1")
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[0] == "reinforced: 3 shards, 12 samples"
    assert "      36 views replayed" in ran.out
    assert ran.out.splitlines()[-1] == "no defects"


def test_defects_are_exit_code_1_and_listed(cli: Cli, folder: Path, tmp_path: Path) -> None:
    for number in range(3):
        path = folder / "train" / f"{number:06d}.tar"
        path.write_bytes(path.read_bytes()[:-3000])
    ran = cli("verify", folder, "--workers", "1", "--list", tmp_path / "defects.jsonl")
    assert ran.code == 1
    assert "train/000001.tar: file size: it has" in ran.out
    assert "       3 file size" in ran.out
    lines = (tmp_path / "defects.jsonl").read_text().splitlines()
    assert f"{len(lines)} defects" in ran.out.splitlines()[-1]
    asked = cli("verify", folder, "--workers", "1", "--json")
    assert asked.code == 1
    values = json.loads(asked.out)
    assert values["num_defects"] == len(values["defects"]) == len(lines)


def test_more_defects_than_a_screen_holds(cli: Cli, tmp_path: Path, make_samples: Callable[..., Any]) -> None:
    def spoil(params: Any, counts: Any, rows: Any) -> None:
        rows[0].image_NAD[...] *= 2.0

    data = write_reinforced(tmp_path / "data", make_samples(24), spec=AugmentSpec(), change=spoil)
    ran = cli("verify", data, "--workers", "1")
    assert "... and 4 more, --list FILE lists them all" in ran.out
    assert "      24 embedding length" in ran.out


def test_samples_are_a_number_or_all(cli: Cli, folder: Path) -> None:
    assert "       6 samples looked into" in cli("verify", folder, "--sample", "2", "--workers", "1").out
    assert "      12 samples looked into" in cli("verify", folder, "--sample", "all", "--workers", "1").out
    ran = cli("verify", folder, "--sample", "some")
    assert ran.code == 2
    assert "a number or all" in ran.sentence()


def test_inspect_prints_a_summary_and_draws_a_sheet(cli: Cli, folder: Path, tmp_path: Path) -> None:
    ran = cli("inspect", folder, "--out", tmp_path / "sheet.png", "-n", "3", "--views", "2")
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[0].startswith("layout    reinforced: 12 samples, 3 shards, ")
    assert ran.out.splitlines()[-1] == f"sheet     {tmp_path / 'sheet.png'}: 3 samples"
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height > 1000
    values = json.loads(cli("inspect", folder, "--json", "--key", "sample0003").out)
    assert values["looked_at"] == ["sample0003"]
    assert values["teachers"][0]["name"] == "a"


def test_mistakes_are_one_sentence(cli: Cli, folder: Path, tmp_path: Path) -> None:
    assert "no such file or folder" in cli("verify", tmp_path / "nowhere").sentence()
    assert "no split 'test'" in cli("verify", folder, "--split", "test").sentence()
    assert "the sheet is a .png" in cli("inspect", folder, "--out", tmp_path / "a.jpg").sentence()
    assert "no shard has a sample nobody" in cli("inspect", folder, "--key", "nobody").sentence()
