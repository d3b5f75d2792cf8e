"""Zero-shot video: frames spread evenly, broken videos listed, classes told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("av")

import av

from pocketclip.evaluate.rows import read_rows
from pocketclip.evaluate.video import VideoConfig, VideoError, evaluate_videos, sample_frames

Cli = Callable[..., Any]
RED, BLUE = (220, 20, 20), (20, 20, 220)


def film(path: Path, colours: list[tuple[int, int, int]]) -> Path:
    """A video with a frame of each colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for colour in colours:
            picture = np.broadcast_to(np.array(colour, dtype=np.uint8), (64, 64, 3))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture))))
        container.mux(stream.encode())
    return path


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    for i in range(2):
        film(tmp_path / "clips" / "red" / f"{i}.mp4", [RED] * (4 + i))
        film(tmp_path / "clips" / "blue" / f"{i}.mp4", [BLUE] * (4 + i))
    return tmp_path / "clips"


def test_frames_are_taken_from_the_middle_of_equal_parts(tmp_path: Path) -> None:
    greys = [(value, value, value) for value in range(0, 240, 20)]  # 12 frames
    path = film(tmp_path / "greys.mp4", greys)
    shades = [frame.convert("L").getpixel((32, 32)) for frame in sample_frames(path, 3)]
    assert shades == pytest.approx([40, 120, 200], abs=6)  # frames 2, 6 and 10
    assert len(sample_frames(film(tmp_path / "short.mp4", [RED, BLUE]), 5)) == 5


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video at all" * 50)
    with pytest.raises(VideoError):
        sample_frames(tmp_path / "bad.mp4", 2)
    with pytest.raises(FileNotFoundError):
        sample_frames(tmp_path / "none.mp4", 2)


def test_classes_are_told_and_a_broken_video_is_listed(
    clips: Path, colour_model: Path, tmp_path: Path
) -> None:
    (clips / "red" / "broken.mp4").write_bytes((clips / "red" / "0.mp4").read_bytes()[:200])
    out = tmp_path / "results.jsonl"
    report = evaluate_videos(colour_model, clips, out=out, config=VideoConfig(num_frames=2, resamples=20))
    assert report.row.main == 1.0
    assert report.row.key == "video/clips"
    assert [one.source for one in report.dropped] == ["red/broken.mp4"]
    assert read_rows(out) == (report.row,)
    assert report.row.details["num_videos"] == 4


def test_wrong_names_are_wrong(clips: Path, colour_model: Path) -> None:
    (clips / "red").rename(clips / "green")
    report = evaluate_videos(colour_model, clips, config=VideoConfig(num_frames=2, resamples=20))
    assert report.row.metrics["mean_per_class_recall"] == 0.5


def test_one_class_is_not_enough(tmp_path: Path, colour_model: Path) -> None:
    film(tmp_path / "clips" / "red" / "0.mp4", [RED] * 3)
    with pytest.raises(ValueError, match="two are needed"):
        evaluate_videos(colour_model, tmp_path / "clips")


def test_the_command(cli: Cli, clips: Path, colour_model: Path) -> None:
    ran = cli("probe", colour_model, "--videos", clips, "--frames", "2")
    assert ran.code == 0, ran.err
    assert "clips, videos: acc1 100.0 [100.0, 100.0]" in ran.out
