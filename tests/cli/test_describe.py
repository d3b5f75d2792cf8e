"""`pocketclip describe`: tables that add up, for variants and for checkpoints."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from pocketclip.checkpoint import load
from pocketclip.models import fold

Cli = Callable[..., Any]


def table(text: str, title: str) -> dict[str, list[str]]:
    """The rows under a title by their first word or words, each a list of its other cells."""
    lines = text.split(f"{title}", 1)[1].split("\n\n")[0].splitlines()[2:]
    rows = [re.split(r"  +", line.strip()) for line in lines]
    return {row[0]: row[1:] for row in rows}


@pytest.mark.parametrize(
    "name", ["mobileclip_s0", "mobileclip2_s4", "mobileclip2_l_14", "pocketclip_tiny", "pocketclip_tiny_vit"]
)
def test_every_kind_of_model_fits_a_page_and_adds_up(cli: Cli, name: str) -> None:
    ran = cli("describe", name)
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == name
    assert max(map(len, lines)) <= 100
    both = table(ran.out, "both towers")
    assert {"training", "folded", "Table 8"} < set(both)
    for tower in ("image tower", "text tower"):
        rows = table(ran.out, tower)
        total = rows.pop("all")
        rows.pop("stage")
        for column in (0, 1):  # parameters, exact
            counts = [int(row[column + 1].replace(",", "")) for row in rows.values()]
            assert sum(counts) == int(total[column].replace(",", ""))
        shares = [float(row[5].rstrip("%")) for row in rows.values()]
        assert sum(shares) == pytest.approx(100, abs=1)


def test_s0_says_what_the_paper_says(cli: Cli) -> None:
    out = cli("describe", "MobileCLIP2-S0").out
    both = table(out, "both towers")
    assert both["Table 8"][:3] == ["11.36", "63.43", "74.79"]
    assert table(out, "image tower")["stage 4, attention"][0] == "[512, 8, 8]"
    assert "2 x 64, 6 x 128, 10 x 256, 2 x 512; attention in stage 4" in out
    assert "256 px" in out
    assert "bilinear" in out
    assert "49,408 ids, 77 a text" in out


def test_json_is_exact(cli: Cli) -> None:
    values = json.loads(cli("describe", "pocketclip_tiny", "--json").out)
    assert values["name"] == "pocketclip_tiny"
    assert values["digest"] is None
    assert values["preprocess"]["size"] == 48
    for tower in ("image_cost", "text_cost"):
        cost = values[tower]
        for form in ("train", "folded"):
            for quantity in ("parameters", "macs"):
                assert cost[form][quantity] == sum(stage[form][quantity] for stage in cost["stages"])


def test_a_checkpoint_says_how_it_was_trained(cli: Cli, tiny_checkpoint: Path, tmp_path: Path) -> None:
    import dataclasses

    from pocketclip.checkpoint import save

    loaded = load(tiny_checkpoint)
    run = {
        "config": {
            "name": "emoji.student_plain",
            "seed": 7,
            "loop": {"num_steps": 200, "average_decay": None},
            "optim": {"betas": [0.9, 0.95]},
        },
        "data_sha256": "ab" * 32,
    }
    path = tmp_path / "trained.safetensors"
    config = dataclasses.replace(loaded.config, run=run)
    save(path, loaded.model, config=config, tokenizer=loaded.tokenizer)
    ran = cli("describe", path)
    assert ran.code == 0
    assert load(path).digest in ran.out
    assert "name emoji.student_plain; seed 7" in ran.out
    assert "num_steps 200" in ran.out
    assert "average_decay" not in ran.out
    assert "betas 0.9, 0.95" in ran.out
    values = json.loads(cli("describe", path, "--json").out)
    assert values["run"] == run
    for form, model in (("train", loaded.model), ("folded", fold(loaded.model))):
        for tower, cost in ((model.image, values["image_cost"]), (model.text, values["text_cost"])):
            assert cost[form]["parameters"] == sum(parameter.numel() for parameter in tower.parameters())


def test_an_untrained_checkpoint_has_nothing_to_say_of_it(cli: Cli, tiny_checkpoint: Path) -> None:
    assert re.search(r"trained +nothing is said", cli("describe", tiny_checkpoint).out)


def test_other_sizes(cli: Cli) -> None:
    values = json.loads(
        cli("describe", "pocketclip_tiny", "--image-px", 96, "--context-length", 40, "--json").out
    )
    assert values["image_cost"]["input_shape"] == [3, 96, 96]
    assert values["text_cost"]["input_shape"] == [40]
    assert values["preprocess"]["size"] == 48  # the model is what it was


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("mobileclip2_so",), ("did you mean", "mobileclip2_s0")),
        (("nothing.safetensors",), ("nothing.safetensors does not exist",)),
        (("pocketclip_tiny_vit", "--image-px", "50"), ("image_px 50", "multiple of patch_px 8")),
        (("pocketclip_tiny", "--image-px", "0"), ("image_px is 0",)),
        (("pocketclip_tiny", "--context-length", "0"), ("context_length is 0",)),
    ],
)
def test_what_cannot_be_described_is_one_sentence(
    cli: Cli, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    ran = cli("describe", *arguments)
    assert ran.code == 1
    assert all(word in ran.sentence() for word in words)


def test_a_file_that_is_no_checkpoint(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "page.safetensors"
    path.write_text("<html>not found</html>")
    ran = cli("describe", path)
    assert ran.code == 1
    assert str(path) in ran.sentence()


def test_what_lies_there_comes_before_a_variant_of_that_name(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pocketclip_tiny").mkdir()
    ran = cli("describe", "pocketclip_tiny")
    assert ran.code == 1
    assert "pocketclip_tiny" in ran.sentence()
