"""A video's moments: one frame of every scene, and of every stretch of a long one, each with its time.

Frames are looked at some times a second, small. Where the spread of brightness and colour over the picture changes at
once, a scene ends; so it does after `max_gap_s`. The frame nearest to a scene's middle stands for it. Long videos whose
key frames lie close enough are decoded at these alone, which encoders like to put where a scene begins.
"""

# Shape suffixes: H W pixels, F features of a frame.

from __future__ import annotations

import io
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pocketclip.search.exif import local_time
from pocketclip.search.media import Frame, Media, MediaLimits

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

LONGEST_PX = 512
"""Longest side of a frame that is kept."""

SCENE_CHANGE = 0.35
"""Share of the histograms that must differ between neighbouring looks for a scene to end, 0 to 1."""

_LOOKS_PER_SECOND = 2.0
_LOOKS_PER_FRAME = 8  # of the most frames that may be kept: longer videos are looked at less often
_WHOLE_S = 120.0  # shorter videos are decoded whole: key frames are too few to tell scenes by
_CELLS, _LEVELS = 2, 16  # a histogram for each quarter of the picture
_MAX_SIDE = 16_384


@dataclass(frozen=True, kw_only=True)
class _Look:
    """A frame that was looked at."""

    at_s: float
    image: Image.Image
    features_F: np.ndarray


@dataclass(frozen=True, kw_only=True)
class _Scene:
    seconds: float
    middle: _Look


def open_video(source: bytes | Path, *, name: str, limits: MediaLimits) -> Media:
    """Opens a video; its frames are decoded when they are asked for.

    Damage ends the frames early; when there was none before it, they raise ValueError.

    Args:
        source: the encoded video, or its path.
        name: what to call it in an error.
        limits: number of frames, seconds between them, seconds of work.

    Raises:
        ValueError: it is no video, holds no pictures, or is damaged; the sentence names it.
        ImportError: PyAV is not installed.
        OSError: the file cannot be read.
    """
    av = _import_av(name)
    with _opened(av, source, name=name) as (container, stream):
        turn = _turn_of(av, container, name=name)
        width, height = stream.codec_context.width, stream.codec_context.height
        about = {key.lower(): value for key, value in (container.metadata | stream.metadata).items()}
    if turn % 180:
        width, height = height, width
    latitude, longitude = _place(about)
    return Media(
        kind="video",
        frames=_frames(av, source, name=name, turn=turn, limits=limits),
        width=width,
        height=height,
        taken=_taken(about),
        latitude=latitude,
        longitude=longitude,
    )


def _import_av(name: str) -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise ImportError(f"{name}: videos need PyAV: pip install 'pocketclip[video]'") from error
    av.logging.set_level(None)  # damage is told as an error
    return av


@contextmanager
def _opened(
    av: ModuleType, source: bytes | Path, *, name: str
) -> Generator[tuple[InputContainer, VideoStream], None, None]:
    try:
        # an open file, not a name: names that are not UTF-8 cannot be handed to FFmpeg, and some mean a network
        with (
            source.open("rb") if isinstance(source, Path) else io.BytesIO(source) as opened,
            av.open(opened) as container,
        ):
            if not container.streams.video:
                raise ValueError(f"{name}: the file holds no pictures, only sound or data")
            stream = container.streams.video[0]
            side = max(stream.codec_context.width, stream.codec_context.height)
            if not 0 < side <= _MAX_SIDE:
                raise ValueError(f"{name}: the video is {side} pixels wide or high, not 1 to {_MAX_SIDE}")
            yield container, stream
    except av.error.FFmpegError as error:
        raise ValueError(
            f"{name}: the video is damaged or of an unknown format ({error.strerror})"
        ) from error


def _turn_of(av: ModuleType, container: InputContainer, *, name: str) -> int:
    """Degrees, counter-clockwise, by which frames are to be turned; as the first one says it."""
    try:
        frame = next(container.decode(video=0), None)
    except av.error.FFmpegError as error:
        raise ValueError(f"{name}: the video is damaged: its first picture cannot be decoded") from error
    if frame is None:
        raise ValueError(f"{name}: the video holds no picture")
    return round(frame.rotation / 90) * 90 % 360


def _frames(
    av: ModuleType, source: bytes | Path, *, name: str, turn: int, limits: MediaLimits
) -> Iterator[Frame]:
    scenes: list[_Scene] = []
    with _opened(av, source, name=name) as (container, stream):
        length_s = _length(container, stream)
        step_s = max(1 / _LOOKS_PER_SECOND, length_s / (limits.max_frames * _LOOKS_PER_FRAME))
        gap_s = max(limits.max_gap_s, length_s / limits.max_frames)
        if length_s > _WHOLE_S and _key_frames_suffice(stream, gap_s=gap_s):
            stream.codec_context.skip_frame = "NONKEY"
        stream.thread_type = "SLICE"  # several files are decoded at once anyway
        looks = _looks(av, container, step_s=step_s, turn=turn, max_seconds=limits.max_seconds)
        for scene in _scenes(looks, gap_s=gap_s, step_s=step_s):
            scenes.append(scene)
            if len(scenes) > limits.max_frames:
                scenes.remove(min(scenes, key=lambda one: one.seconds))
    if not scenes:
        raise ValueError(f"{name}: no picture of the video can be decoded")
    for scene in scenes:
        yield Frame(image=scene.middle.image, at_s=round(scene.middle.at_s, 3))


def _length(container: InputContainer, stream: VideoStream) -> float:
    if container.duration:
        return container.duration / 1_000_000
    return float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0


def _key_frames_suffice(stream: VideoStream, *, gap_s: float) -> bool:
    """Whether the container's own table says that key frames lie close enough to one another."""
    if stream.time_base is None:
        return False
    at_s = [entry.timestamp * float(stream.time_base) for entry in stream.index_entries if entry.is_keyframe]
    gaps = np.diff(at_s)
    return len(gaps) > 0 and float(np.max(gaps)) <= gap_s


def _looks(
    av: ModuleType, container: InputContainer, *, step_s: float, turn: int, max_seconds: float
) -> Iterator[_Look]:
    """A small frame every `step_s`, until the video, the time or what is whole of it ends."""
    deadline = time.monotonic() + max_seconds
    first_s, next_s = None, 0.0
    try:
        for frame in container.decode(video=0):
            if time.monotonic() > deadline:
                return
            if frame.time is None:
                continue
            first_s = frame.time if first_s is None else first_s
            at_s = max(0.0, frame.time - first_s)
            if at_s >= next_s:
                next_s = at_s + step_s
                image = _small(frame, turn=turn)
                yield _Look(at_s=at_s, image=image, features_F=_features(image))
    except av.error.FFmpegError:
        return  # cut off: what came before is good


def _small(frame: av.VideoFrame, *, turn: int) -> Image.Image:
    scale = min(1.0, LONGEST_PX / max(frame.width, frame.height))
    width, height = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
    image = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA").to_image()
    return image.rotate(turn, expand=True) if turn else image


def _features(image: Image.Image) -> np.ndarray:
    """Histograms of brightness and both colour differences, of each part of the picture; each sums to 1."""
    small_HWC = np.asarray(image.convert("YCbCr").resize((64, 64), Image.Resampling.BOX))
    levels_HWC = small_HWC // (256 // _LEVELS)
    side = 64 // _CELLS
    parts = (
        np.bincount(levels_HWC[y : y + side, x : x + side, channel].ravel(), minlength=_LEVELS) / side**2
        for y in range(0, 64, side)
        for x in range(0, 64, side)
        for channel in range(3)
    )
    return np.concatenate(list(parts))


def _difference(one_F: np.ndarray, other_F: np.ndarray) -> float:
    """0 for the same histograms, 1 for histograms that share nothing; the channel that differs most counts."""
    halves = np.abs(one_F - other_F).reshape(_CELLS * _CELLS, 3, _LEVELS).sum(axis=-1) / 2
    return float(halves.mean(axis=0).max())


def _scenes(looks: Iterator[_Look], *, gap_s: float, step_s: float) -> Iterator[_Scene]:
    scene: list[_Look] = []
    for look in looks:
        if scene and (
            look.at_s - scene[0].at_s >= gap_s
            or _difference(scene[-1].features_F, look.features_F) >= SCENE_CHANGE
        ):
            yield _scene(scene, end_s=look.at_s)
            scene = []
        scene.append(look)
    if scene:
        yield _scene(scene, end_s=scene[-1].at_s + step_s)


def _scene(looks: list[_Look], *, end_s: float) -> _Scene:
    middle_s = (looks[0].at_s + looks[-1].at_s) / 2
    middle = min(looks, key=lambda look: abs(look.at_s - middle_s))
    return _Scene(seconds=end_s - looks[0].at_s, middle=middle)


def _taken(about: dict[str, str]) -> str | None:
    local = about.get("com.apple.quicktime.creationdate")
    if local is not None and local_time(local) is not None:
        return local_time(local)
    try:
        moment = datetime.fromisoformat(about.get("creation_time", ""))
    except ValueError:
        return None
    if moment.year <= 1970:  # an empty field
        return None
    # UTC by its definition; the zone of the place is not said, that of this machine is the best guess
    zoned = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return zoned.astimezone().replace(tzinfo=None, microsecond=0).isoformat()


def _place(about: dict[str, str]) -> tuple[float | None, float | None]:
    """Degrees of latitude and longitude from ISO 6709, "+48.1351+011.5820/"."""
    text = about.get("com.apple.quicktime.location.iso6709") or about.get("location", "")
    signs = [at for at, letter in enumerate(text) if letter in "+-"] + [len(text)]
    try:
        latitude, longitude = (float(text[signs[i] : signs[i + 1]].rstrip("/")) for i in range(2))
    except (ValueError, IndexError):
        return None, None
    inside = abs(latitude) <= 90 and abs(longitude) <= 180
    return (latitude, longitude) if inside else (None, None)
