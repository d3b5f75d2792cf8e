"""A bench: rows for what can be run, arithmetic that adds up, JSON that comes back, pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from pocketclip.bench import BenchConfig, BenchReport, Contestant, Machine, Peak, Row, bench
from pocketclip.bench.backends import bench_backends
from pocketclip.bench.memory import peak_memory_mb
from pocketclip.bench.subject import Setting, Subject
from pocketclip.models import variant
from pocketclip.models.count import describe_towers

Cli = Callable[..., Any]
QUICK = BenchConfig(
    batch_sizes=(1, 2),
    threads=(1,),
    rounds=2,
    turn_seconds=0.0,
    warmup=1,
    memory=False,
    backends=("eager", "folded"),
)


def test_every_tower_backend_and_batch_has_a_row() -> None:
    threads = torch.get_num_threads()
    report = bench({"a": "pocketclip_tiny", "b": "pocketclip_tiny_vit"}, config=QUICK)
    assert torch.get_num_threads() == threads
    found = [(row.model, row.tower, row.backend, row.batch_size) for row in report.rows]
    assert len(set(found)) == len(found) == 2 * 2 * 2 * 2
    assert report.models["a"].variant == "pocketclip_tiny"
    assert report.left_out == ()
    for row in report.rows:
        assert row.q1_ms <= row.latency_ms <= row.q3_ms
        assert row.num_calls >= QUICK.rounds
        assert row.per_s == pytest.approx(1000 * row.batch_size / row.latency_ms)
    firsts = [row for row in report.rows if (row.model, row.backend) == ("a", "eager")]
    assert [row.ratio for row in firsts] == [1.0] * 4
    cost = describe_towers(variant("pocketclip_tiny").model, image_px=48).image
    macs = {row.backend: row.macs for row in report.rows if (row.model, row.tower) == ("a", "image")}
    assert macs == {"eager": cost.train.macs, "folded": cost.folded.macs}
    assert [(peak.precision, peak.threads) for peak in report.peaks] == [("fp32", 1)]
    assert report.peaks[0].gflops > 0


def test_an_exported_model_is_run_by_the_runtime(colour_model: Path) -> None:
    config = replace(QUICK, backends=("folded", "onnxruntime"), batch_sizes=(2,))
    report = bench({"colour": colour_model}, config=config)
    assert [(row.tower, row.backend, row.precision, row.macs) for row in report.rows] == [
        ("image", "onnxruntime", "fp32", None),
        ("text", "onnxruntime", "fp32", None),
    ]
    assert len(report.left_out) == 2
    assert "not run by folded" in report.left_out[0]


def test_sizes_are_swept() -> None:
    config = replace(QUICK, towers=("image",), sizes=(32, 64), batch_sizes=(1,), backends=("folded",))
    report = bench({"a": "pocketclip_tiny_vit"}, config=config)
    assert [row.image_px for row in report.rows] == [32, 64]
    small, large = (row.macs for row in report.rows)
    assert small is not None
    assert large is not None
    assert large > 3 * small


def test_precisions_have_rows_and_peaks_of_their_own() -> None:
    config = replace(
        QUICK, precisions=("fp32", "bf16"), towers=("text",), batch_sizes=(1,), backends=("eager",)
    )
    report = bench({"a": "pocketclip_tiny"}, config=config)
    assert [row.precision for row in report.rows] == ["fp32", "bf16"]
    assert [peak.precision for peak in report.peaks] == ["fp32", "bf16"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backends": ("warp",)}, "no backend warp"),
        ({"backends": ("onnxruntime",)}, "none of onnxruntime runs"),
    ],
)
def test_what_cannot_be_run(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        bench({"a": "pocketclip_tiny"}, config=replace(QUICK, **changes))


@pytest.mark.parametrize(
    "changes", [{"towers": ("audio",)}, {"rounds": 0}, {"batch_sizes": (1, 1)}, {"precisions": ("int3",)}]
)
def test_configurations_that_make_no_sense(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must|may"):
        replace(QUICK, **changes)


def test_a_network_is_the_checkpoints_whatever_its_form() -> None:
    subject = Subject("a", "pocketclip_tiny")
    setting = Setting(
        tower="image", backend="folded", precision="fp32", threads=1, batch_size=2, image_px=48, device="cpu"
    )
    image = torch.randn(2, 3, 48, 48)
    forms = [
        subject.network(is_folded=is_folded, precision="fp32", image_px=48, device="cpu")
        for is_folded in (False, True)
    ]
    with torch.inference_mode():
        first, second = (form.encode_image(image, normalize=True) for form in forms)
    torch.testing.assert_close(first, second, atol=1e-4, rtol=0)
    assert bench_backends()["folded"].open(subject, setting)() is None


@pytest.mark.slow
def test_memory_holds_the_weights() -> None:
    setting = Setting(
        tower="image", backend="eager", precision="fp32", threads=1, batch_size=1, image_px=256, device="cpu"
    )
    subject = Subject("a", "MobileCLIP2-S0")
    weights_mb = 4 * sum(p.numel() for p in subject.loaded.model.parameters()) / 1e6
    found = peak_memory_mb(subject, setting)
    assert found is not None
    assert weights_mb < found < 2.5 * weights_mb


def made(**changes: Any) -> BenchReport:
    row = Row(
        model="a",
        tower="image",
        backend="folded",
        precision="fp32",
        threads=1,
        batch_size=1,
        image_px=256,
        latency_ms=20.0,
        q1_ms=19.0,
        q3_ms=22.0,
        num_calls=30,
        macs=2_000_000_000,
        peak_share=0.5,
        ratio=1.0,
        ratio_q1=1.0,
        ratio_q3=1.0,
        memory_mb=120.0,
    )
    rows = (
        row,
        replace(row, backend="onnxruntime", latency_ms=10.0, q1_ms=9.0, q3_ms=11.0, ratio=0.5),
        replace(row, tower="text", image_px=None, latency_ms=5.0, q1_ms=5.0, q3_ms=5.0),
        replace(row, batch_size=16, latency_ms=200.0),
    )
    return BenchReport(
        machine=Machine(cpu="a processor", cores=2, device="cpu", versions={}),
        config=QUICK,
        models={"a": Contestant(source="a", variant="mobileclip2_s0", image_px=256)},
        peaks=(Peak(precision="fp32", threads=1, gflops=80.0),),
        **({"rows": rows} | changes),
    )


class TestReport:
    def test_it_comes_back(self, tmp_path: Path) -> None:
        made().write(tmp_path / "bench.json")
        assert BenchReport.read(tmp_path / "bench.json") == made()

    def test_the_fastest_way_for_one(self) -> None:
        assert made().latency_ms("a", "image") == (10.0, 9.0, 11.0)
        assert made().latency_ms("b", "image") is None

    def test_the_table_tells_races_apart(self) -> None:
        table = made().table()
        assert "image tower, batch 1, 1 thread" in table
        assert "image tower, batch 16, 1 thread" in table
        assert "19.00-22.00" in table
        assert "80 GFLOP/s" in table

    @pytest.mark.parametrize("text", ["{", "{}", '{"format": "pocketclip-bench", "version": 1}'])
    def test_damage(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "bench.json").write_text(text)
        with pytest.raises(ValueError, match="pocketclip bench --out"):
            BenchReport.read(tmp_path / "bench.json")

    def test_pictures(self, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib")
        from pocketclip.bench.plot import plot_bench

        figure = plot_bench(made(), [tmp_path / "bench.svg", tmp_path / "bench.png"])
        assert [axes.get_title(loc="left") for axes in figure.axes] == [
            "image tower, batch 1, 1 thread",
            "text tower, batch 1, 1 thread",
            "image tower, batch 16, 1 thread",
        ]
        assert "10 ms" in (tmp_path / "bench.svg").read_text()
        row = made().rows[0]
        swept = made(rows=(row, replace(row, image_px=512, latency_ms=80.0)))
        swept = replace(swept, config=replace(QUICK, sizes=(256, 512)))
        (line,) = plot_bench(swept, [tmp_path / "sweep.svg"]).axes[0].lines
        assert line.get_xydata().tolist() == [[256.0, 20.0], [512.0, 80.0]]
        with pytest.raises(ValueError, match=r"\.png"):
            plot_bench(made(), [tmp_path / "bench.bmp"])


class TestCli:
    def test_json(self, cli: Cli, tmp_path: Path) -> None:
        out = tmp_path / "bench.json"
        ran = cli(
            *(
                "bench",
                "mine=pocketclip_tiny",
                "--tower",
                "text",
                "--batch",
                "1",
                "--threads",
                "1",
                "--rounds",
                "1",
            ),
            *("--turn-seconds", "0", "--skip-memory", "--out", out, "--json"),
        )
        assert ran.code == 0, ran.err
        values = json.loads(ran.out)
        assert [(row["model"], row["backend"]) for row in values["rows"]] == [
            ("mine", "eager"),
            ("mine", "folded"),
        ]
        assert {row["memory_mb"] for row in values["rows"]} == {None}
        assert [row.latency_ms for row in BenchReport.read(out).rows] == [
            r["latency_ms"] for r in values["rows"]
        ]

    def test_without_a_model(self, cli: Cli) -> None:
        assert cli("bench").code == 2

    def test_a_name_that_nobody_has(self, cli: Cli) -> None:
        ran = cli("bench", "mobileclip9", "--skip-memory")
        assert (ran.code, "mobileclip9" in ran.sentence()) == (1, True)
