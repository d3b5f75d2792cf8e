"""From files to pixels, in threads, ahead of the network and in order; known content is not decoded."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Full, Queue

import numpy as np
import numpy.typing as npt

from pocketclip.data.preprocess import Preprocess
from pocketclip.search.media import Media, MediaLimits, read_media, thumbnail
from pocketclip.search.source import Entry
from pocketclip.search.writer import Content, Seen

_AHEAD = 64  # stills that are prepared before they are asked for
_FRAMES_AHEAD = 16  # of a video


@dataclass(frozen=True, kw_only=True)
class Fresh:
    """A picture, or a frame, that has to be embedded."""

    content: Content
    pixels_HWC: npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A file that was read.

    Attributes:
        seen: what was looked at.
        sha256: of its bytes.
        fresh: what has to be embedded, to be gone through once; None where its content is known already, or is being
            prepared for another file.
    """

    seen: Seen
    sha256: bytes
    fresh: Iterable[Fresh] | None


@dataclass(frozen=True, kw_only=True)
class Bad:
    """A file that cannot be used.

    Attributes:
        seen: what was looked at.
        reason: one sentence that begins with the file's name.
        sha256: of its bytes, where they could be read.
    """

    seen: Seen
    reason: str
    sha256: bytes | None = None


class Preparer:
    """Reads, hashes and decodes; see `ahead`."""

    def __init__(
        self, *, preprocess: Preprocess, is_known: Callable[[bytes], bool], limits: MediaLimits
    ) -> None:
        """Set it up.

        Args:
            preprocess: of the model.
            is_known: tells of a SHA-256 whether it is in the index; called from any thread.
            limits: of what is decoded.
        """
        self._preprocess = preprocess
        self._is_known = is_known
        self._limits = limits
        self._lock = threading.Lock()
        self._claimed: set[bytes] = set()

    def ahead(
        self, pool: ThreadPoolExecutor, entries: Iterable[tuple[Entry, Seen]]
    ) -> Iterator[Prepared | Bad]:
        """Prepares entries in the pool and gives them in order; some more than are asked for."""
        waiting: deque[Future[Prepared | Bad]] = deque()
        for entry, seen in entries:
            waiting.append(pool.submit(self._prepare, entry, seen))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _prepare(self, entry: Entry, seen: Seen) -> Prepared | Bad:
        sha256 = None
        try:
            if entry.kind == "video" and entry.file is not None:
                data, caption = entry.file, None
                sha256 = _hash_file(entry.file)
            else:
                data, caption = entry.read()
                sha256 = hashlib.sha256(data).digest()
            if not self._claim(sha256):
                return Prepared(seen=seen, sha256=sha256, fresh=None)
            media = read_media(data, name=entry.name, limits=self._limits)
            num_bytes = seen.num_bytes if isinstance(data, Path) else len(data)
            frames = self._frames(media, caption=caption, num_bytes=num_bytes)
            fresh = frames if media.kind == "video" else list(frames)
        except OSError as error:  # it may be there, or readable, the next time
            reason = f"{entry.name}: cannot be read ({error.strerror or 'input error'})"
            return Bad(seen=seen.to_be_tried_again(), reason=reason)
        except ImportError as error:
            return Bad(seen=seen.to_be_tried_again(), reason=str(error), sha256=sha256)
        except ValueError as error:
            return Bad(seen=seen, reason=str(error), sha256=sha256)
        return Prepared(seen=seen, sha256=sha256, fresh=fresh)

    def _claim(self, sha256: bytes) -> bool:
        """Whether this content is nobody else's to decode."""
        if self._is_known(sha256):
            return False
        with self._lock:
            mine = sha256 not in self._claimed
            self._claimed.add(sha256)
            return mine

    def _frames(self, media: Media, *, caption: str | None, num_bytes: int) -> Iterator[Fresh]:
        for number, frame in enumerate(media.frames):
            content = Content(
                frame=number,
                at_s=frame.at_s,
                kind=media.kind,
                num_bytes=num_bytes,
                width=media.width,
                height=media.height,
                taken=media.taken,
                latitude=media.latitude,
                longitude=media.longitude,
                caption=caption,
                thumbnail=thumbnail(frame.image),
            )
            yield Fresh(content=content, pixels_HWC=self._preprocess.pixels(frame.image))


@contextmanager
def beside(items: Iterable[Fresh]) -> Generator[Iterator[Fresh], None, None]:
    """Goes through a video in a thread of its own, some frames ahead of who asks.

    Raises:
        ValueError: from the iterator, when the video is damaged there.
    """
    queue: Queue[Fresh | ValueError | None] = Queue(_FRAMES_AHEAD)
    left = threading.Event()

    def put(item: Fresh | ValueError | None) -> None:
        while not left.is_set():
            try:
                queue.put(item, timeout=0.1)
            except Full:
                continue
            return

    def fill() -> None:
        try:
            for item in items:
                put(item)
                if left.is_set():
                    return
            put(None)
        except (ValueError, OSError) as error:
            put(error if isinstance(error, ValueError) else ValueError(str(error)))

    def taken() -> Iterator[Fresh]:
        while (item := queue.get()) is not None:
            if isinstance(item, ValueError):
                raise item
            yield item

    thread = threading.Thread(target=fill, name="decode-video", daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        left.set()
        thread.join()


def _hash_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
