"""`pocketclip join` and `pocketclip publish`: what is printed, and how mistakes are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.published_sets import draw_picture, make_sample, write_images, write_published

pytest.importorskip("torch")  # writes the pth.gz

Cli = Callable[..., Any]


@pytest.fixture
def published(tmp_path: Path) -> Path:
    samples = [make_sample(number) for number in range(6)]
    write_published(tmp_path / "dr" / "0.tar", samples[:3], storage="pth.gz")
    write_published(tmp_path / "dr" / "1.tar", samples[3:], storage="pth.gz")
    write_images(tmp_path / "images.tar", samples[:5])
    return tmp_path


def test_join_publish_verify_inspect(cli: Cli, published: Path) -> None:
    joined = cli("join", published / "dr", published / "out", "--images", published / "images.tar")
    assert joined.code == 0, joined.err
    assert "       5 samples  " in joined.out
    assert "       1 missing  " in joined.out
    assert "               1 no picture" in joined.out
    assert cli("verify", published / "out").code == 0
    back = cli("publish", published / "out", published / "back", "--layout", "v1-pth.gz", "--with-images")
    assert back.code == 0, back.err
    assert "       5 samples  " in back.out
    assert "columns  OpenAI-ViT-L-14 768, DataComp-XL-ViT-L-14 768" in back.out
    checked = cli("verify", published / "back")
    assert checked.code == 0, checked.out
    assert "published: 2 shards, 5 samples" in checked.out


def test_json(cli: Cli, published: Path) -> None:
    values = json.loads(
        cli("join", published / "dr", published / "out", "--images", published / "images.tar", "--json").out
    )
    assert values == {
        "num_samples": 5,
        "num_shards": 2,
        "num_missing": 1,
        "missing": {"no picture": 1},
        "num_loose": 0,
    }
    values = json.loads(cli("publish", published / "out", published / "back", "--json").out)
    assert (values["num_shards"], values["num_captions_left"]) == (2, 0)


def test_pictures_that_are_larger_than_they_were_are_told(cli: Cli, tmp_path: Path) -> None:
    sample = make_sample(0)
    write_published(tmp_path / "dr" / "0.tar", [sample])
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / f"{sample.uid}.jpg").write_bytes(draw_picture(0, width=480, height=360))
    ran = cli(
        "join", tmp_path / "dr", tmp_path / "out", "--images", tmp_path / "images", "--sha256", "ignore"
    )
    assert "--longest-px shrinks them" in ran.out


@pytest.mark.parametrize("teacher", ["a", "a=768", "a=x@1", "=768@1", "a=0@1", "a=768@0", "a=768@x"])
def test_teachers_of_a_wrong_form_are_wrong_usage(cli: Cli, published: Path, teacher: str) -> None:
    ran = cli("join", published / "dr", published / "out", "--teacher", teacher)
    assert ran.code == 2
    assert "NAME=WIDTH@SCALE" in ran.sentence()


def test_other_teachers(cli: Cli, published: Path) -> None:
    images = ("--images", published / "images.tar")
    ran = cli("join", published / "dr", published / "out", *images, "--teacher", "a=768@50", "b=768@60")
    assert ran.code == 0, ran.err
    back = cli("publish", published / "out", published / "back")
    assert "columns  a 768, b 768" in back.out


def test_mistakes_are_one_sentence(cli: Cli, published: Path) -> None:
    assert "no such file or folder" in cli("join", published / "nowhere", published / "out").sentence()
    assert "not one sample of" in cli("join", published / "dr", published / "out").sentence()
    assert (
        "no regular expression"
        in cli("join", published / "dr", published / "o", "--synthetic", "(").sentence()
    )
    assert (
        "user_agent"
        in cli("join", published / "dr", published / "o", "--download", "--user-agent", "\n").sentence()
    )
    assert "is not a packed folder" in cli("publish", published / "dr", published / "o").sentence()
