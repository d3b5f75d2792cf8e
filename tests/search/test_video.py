"""Videos: a frame of each scene at its time, upright, and whatever is wrong told in a sentence."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pocketclip.search.media import Media, MediaLimits, read_media

av = pytest.importorskip("av")

RED, GREEN, BLUE = (220, 30, 30), (30, 200, 30), (30, 30, 220)


def video(
    scenes: Sequence[tuple[tuple[int, int, int], float]],
    *,
    kind: str = "mp4",
    size: tuple[int, int] = (128, 96),
    rate: int = 10,
    group: int = 12,
    turned: int = 0,
    metadata: dict[str, str] | None = None,
) -> bytes:
    """Scenes of one colour each, (colour, seconds), with a white band along the top."""
    file = io.BytesIO()
    options = {"movflags": "use_metadata_tags"} if metadata else {}
    with av.open(file, "w", format=kind, options=options) as container:
        container.metadata.update(metadata or {})
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, rate)
        stream.codec_context.gop_size = group
        if turned:
            stream.set_display_rotation(turned)
        number = 0
        for colour, seconds in scenes:
            for _ in range(round(seconds * rate)):
                pixels_HWC = np.broadcast_to(np.array(colour, np.uint8), (size[1], size[0], 3)).copy()
                pixels_HWC[: size[1] // 8] = 255
                frame = av.VideoFrame.from_ndarray(pixels_HWC, format="rgb24")
                frame.pts = number
                number += 1
                container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def opened(data: bytes | Path, **limits: float) -> tuple[Media, list[tuple[float, np.ndarray]]]:
    media = read_media(data, name="x.mp4", limits=MediaLimits(**limits))  # ty: ignore
    frames = []
    for frame in media.frames:
        assert frame.at_s is not None
        frames.append((frame.at_s, np.asarray(frame.image)))
    return media, frames


def nearest(pixels_HWC: np.ndarray) -> tuple[int, int, int]:
    height, width, _ = pixels_HWC.shape
    middle_C = pixels_HWC[height // 2, width // 2].astype(int)
    return min((RED, GREEN, BLUE), key=lambda colour: np.abs(middle_C - np.array(colour)).sum())


@pytest.mark.parametrize("kind", ["mp4", "matroska", "avi", "mov"])
def test_every_scene_gives_the_frame_in_its_middle(kind: str):
    data = video([(RED, 4), (GREEN, 2), (BLUE, 6)], kind=kind)
    media, frames = opened(data)
    assert (media.kind, media.width, media.height) == ("video", 128, 96)
    assert [nearest(pixels) for _, pixels in frames] == [RED, GREEN, BLUE]
    for (at_s, _), middle_s in zip(frames, (2.0, 5.0, 9.0), strict=True):
        assert abs(at_s - middle_s) <= 0.5


def test_a_long_scene_gives_a_frame_every_so_often():
    _, frames = opened(video([(RED, 30)], rate=5), max_gap_s=10)
    assert len(frames) == 3
    assert max(np.diff([at_s for at_s, _ in frames])) <= 11


def test_there_are_no_more_frames_than_allowed_and_long_scenes_stay():
    _, frames = opened(video([(RED, 5), (GREEN, 1), (BLUE, 4), (GREEN, 1), (RED, 5)]), max_frames=3)
    assert [nearest(pixels) for _, pixels in frames] == [RED, BLUE, RED]


def test_long_videos_are_looked_at_by_their_key_frames(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pocketclip.search.video._WHOLE_S", 5.0)
    scenes = [(RED, 6.0), (GREEN, 6.0), (BLUE, 6.0)]
    _, frames = opened(video(scenes, group=10))  # a key frame each second
    assert [nearest(pixels) for _, pixels in frames] == [RED, GREEN, BLUE]
    assert all(at_s % 1 == 0 for at_s, _ in frames)


def test_frames_are_small_and_upright():
    media, frames = opened(video([(RED, 1)], size=(1280, 720), turned=90))
    (_, pixels_HWC), *_ = frames
    assert (media.width, media.height) == (720, 1280)
    assert pixels_HWC.shape == (512, 288, 3)
    straight_HWC = opened(video([(RED, 1)], size=(1280, 720)))[1][0][1]
    turns = [np.rot90(straight_HWC, k) for k in (1, -1)]
    differences = [np.abs(pixels_HWC.astype(int) - turn).mean() for turn in turns]
    assert differences[0] < 5 < differences[1]  # set_display_rotation counts counter-clockwise


def test_when_and_where():
    media, _ = opened(
        video([(RED, 1)], kind="mov", metadata={
            "com.apple.quicktime.creationdate": "2024-05-01T12:30:59+0200",
            "com.apple.quicktime.location.ISO6709": "-33.8568+151.2153+012.000/",
        })
    )  # fmt: skip
    assert media.taken == "2024-05-01T12:30:59"
    assert (media.latitude, media.longitude) == (-33.8568, 151.2153)
    assert opened(video([(RED, 1)]))[0].taken is None


def test_a_path_that_is_not_utf8(tmp_path: Path):
    path = tmp_path / "caf\udce9.mp4"
    path.write_bytes(video([(RED, 1), (BLUE, 1)]))
    assert [nearest(pixels) for _, pixels in opened(path)[1]] == [RED, BLUE]


def test_damage_in_the_middle_keeps_what_came_before():
    data = video([(RED, 4), (GREEN, 4), (BLUE, 4)], kind="matroska")
    _, frames = opened(data[: len(data) // 2])
    assert nearest(frames[0][1]) == RED
    assert len(frames) < 3


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 3], lambda data: data[:40], lambda data: b"",
                                    lambda data: b"\0\0\0\x18ftypisom" + bytes(5000)])  # fmt: skip
def test_damage_is_one_sentence(damage):
    with pytest.raises(ValueError, match=r"x\.mp4: the video"):
        opened(damage(video([(RED, 3)])))


def test_sound_alone_is_no_video():
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=8000)
        for _ in range(4):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 8000
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(ValueError, match=r"x\.mp4: the file holds no pictures"):
        opened(file.getvalue())


def test_a_video_of_no_length_is_refused():
    with pytest.raises(ValueError, match=r"x\.mp4: "):
        opened(video([]))


def test_a_single_frame_is_a_scene():
    _, frames = opened(video([(GREEN, 0.1)]))
    assert [(at_s, nearest(pixels)) for at_s, pixels in frames] == [(0.0, GREEN)]


def test_the_time_for_a_video_is_limited(monkeypatch: pytest.MonkeyPatch):
    ticks = iter(range(10_000))
    monkeypatch.setattr("pocketclip.search.video.time", SimpleNamespace(monotonic=lambda: next(ticks)))
    _, frames = opened(video([(RED, 2), (BLUE, 20)]), max_seconds=30)
    assert [nearest(pixels) for _, pixels in frames] == [RED, BLUE]
    assert frames[-1][0] < 3
