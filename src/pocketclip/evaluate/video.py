"""Zero-shot classification of videos: a few frames spread evenly over each, embedded, averaged, and named.

F: frames, D: embedding, C: classes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from pocketclip.data.index import Dropped
from pocketclip.evaluate.accuracy import predict
from pocketclip.evaluate.embedder import Evaluable, PixelEmbedder, as_embedder
from pocketclip.evaluate.probe_row import classified, keep, own_rows
from pocketclip.evaluate.rows import Row
from pocketclip.evaluate.sets.item import digest_of, sized
from pocketclip.evaluate.texts import TextRows

SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".gif")
TEMPLATES = (
    "a photo of {c}.",
    "a video of {c}.",
    "a person doing {c}.",
    "a video of a person doing {c}.",
    "an example of {c}.",
)


class VideoError(ValueError):
    """A video that cannot be read."""


@dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """How videos are named.

    Attributes:
        num_frames: sampled from each, in the middle of as many equal parts.
        templates: prompts, `{c}` for the class.
        batch_size: texts a run of the network.
        device: where torch runs the model.
        seed: of the bootstrap draws.
        resamples: their number.
    """

    num_frames: int = 8
    templates: tuple[str, ...] = TEMPLATES
    batch_size: int = 64
    device: str = "cpu"
    seed: int = 0
    resamples: int = 1000

    def __post_init__(self) -> None:
        if min(self.num_frames, self.batch_size, self.resamples) < 1:
            raise ValueError("num_frames, batch_size and resamples must be at least 1")
        if not self.templates or not all("{c}" in template for template in self.templates):
            raise ValueError(f"every template must hold {{c}} where the class goes: {list(self.templates)}")


@dataclass(frozen=True, kw_only=True)
class VideoReport:
    """What was measured.

    Attributes:
        row: the result, as in a result file.
        dropped: videos that could not be read, and why.
    """

    row: Row
    dropped: tuple[Dropped, ...]


def evaluate_videos(
    model: Evaluable,
    folder: Path,
    *,
    name: str | None = None,
    out: Path | None = None,
    config: VideoConfig | None = None,
) -> VideoReport:
    """Name the videos of a folder zero-shot: the class whose prompts are nearest to the mean of a video's frames.

    Args:
        model: whatever `evaluate` takes.
        folder: a folder with a folder of videos for each class; their names are the class names, "_" read as a space.
        name: of the set, in the result's key `video/NAME`; None for the folder's.
        out: result file; other rows in it are kept. None keeps nothing.
        config: how; None for the defaults.

    Returns:
        acc1, acc5 (where there are five classes) and mean_per_class_recall, 0..1. A video that cannot be read is left
        out and listed.

    Raises:
        ImportError: the `video` extra is not installed.
        ValueError: fewer than two classes, no video that can be read, or a result file of another model.
        OSError: the folder cannot be read, or the results cannot be written.
    """
    require_video()
    config = config or VideoConfig()
    folder = Path(folder)
    classes, paths = _videos(folder)
    embedder = as_embedder(model, name=str(folder.name), device=config.device)
    if not isinstance(embedder, PixelEmbedder):
        raise ValueError(
            f"a {type(embedder).__name__} cannot name videos: give a checkpoint or an exported model"
        )
    others = own_rows(out, embedder)
    rows_ND, label_N, dropped = _embed(embedder, folder, paths, config=config)
    texts = TextRows(embedder, batch_size=config.batch_size)
    class_rows_CD = texts.classes([text.replace("_", " ") for text in classes], config.templates)
    top = predict(rows_ND, class_rows_CD, logit_scale=embedder.logit_scale).top
    title = name or folder.name
    row = classified(
        label_N,
        top,
        key=f"video/{title}",
        dataset=f"{title}, videos",
        embedder=embedder,
        details={
            "data": digest_of(sized([path for path, _ in paths], root=folder)),
            "num_videos": len(label_N),
            "num_frames": config.num_frames,
            "dropped": [f"{one.source}: {one.reason}" for one in dropped],
            "num_classes": len(classes),
            "num_templates": len(config.templates),
        },
        seed=config.seed,
        resamples=config.resamples,
    )
    if out is not None:
        keep(out, [row], {row.key: {"label": label_N, "top": top}}, others=others)
    return VideoReport(row=row, dropped=dropped)


def sample_frames(path: Path, num_frames: int) -> list[Image.Image]:
    """RGB frames in the middle of `num_frames` equal parts of a video, by number; fewer frames are repeated.

    Every frame is decoded once: seeking is not exact in all formats, and counts in headers are not to be trusted.

    Raises:
        ImportError: the `video` extra is not installed.
        VideoError: it cannot be read, or has no frame.
        OSError: there is no such file.
    """
    require_video()
    import av

    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        count = _count(path)
        wanted = [min(count - 1, (2 * part + 1) * count // (2 * num_frames)) for part in range(num_frames)]
        found: dict[int, Image.Image] = {}
        with av.open(str(path)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number in wanted:
                    found[number] = frame.to_image()
                if number >= wanted[-1]:
                    break
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise VideoError(" ".join(str(error).split()) or type(error).__name__) from error
    return [found[number] for number in wanted]


def require_video() -> None:
    """Raises ImportError when the `video` extra is missing."""
    try:
        import av
    except ImportError as error:
        raise ImportError(
            "reading videos needs av, which is not installed: pip install 'pocketclip[video]'"
        ) from error
    assert av.__name__


def _count(path: Path) -> int:
    """Frames that can be decoded.

    Raises:
        VideoError: none.
    """
    import av

    with av.open(str(path)) as container:
        if not container.streams.video:
            raise VideoError("it has no pictures")
        count = sum(1 for _ in container.decode(video=0))
    if not count:
        raise VideoError("it has no frame")
    return count


def _videos(folder: Path) -> tuple[list[str], list[tuple[Path, int]]]:
    """Class names, and every video with its label."""
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = {
        place.name: videos
        for place in inside
        if (videos := sorted(path for path in place.iterdir() if path.suffix.lower() in SUFFIXES))
    }
    if len(found) < 2:
        raise ValueError(
            f"{folder} has videos of {len(found)} classes, and two are needed: a folder for each class, with "
            f"{', '.join(SUFFIXES)} files in it"
        )
    return list(found), [(path, label) for label, videos in enumerate(found.values()) for path in videos]


def _embed(
    embedder: PixelEmbedder, folder: Path, paths: Sequence[tuple[Path, int]], *, config: VideoConfig
) -> tuple[NDArray[np.float32], NDArray[np.int64], tuple[Dropped, ...]]:
    """[N, D] unit-norm rows and labels [N] of the videos that can be read, and the others."""
    rows, labels, dropped = [], [], []
    for path, label in tqdm(
        paths, desc="videos", unit="video", mininterval=0.1 if sys.stderr.isatty() else 10
    ):
        try:
            frames = sample_frames(path, config.num_frames)
        except VideoError as error:
            dropped.append(Dropped(source=path.relative_to(folder).as_posix(), reason=str(error)))
            continue
        mean_D = embedder.embed_images(frames).mean(axis=0)
        rows.append(mean_D / np.linalg.norm(mean_D))
        labels.append(label)
    if not rows:
        raise ValueError(
            f"none of the {len(paths)} videos of {folder} can be read (the first: {dropped[0].reason})"
        )
    return np.stack(rows).astype(np.float32), np.array(labels, dtype=np.int64), tuple(dropped)
