"""Reading a split of a packed folder for evaluation: pictures in order, damaged ones left out and named."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from pocketclip.data.index import Dropped, read_index, split_shards
from pocketclip.data.picture import PictureError, decode
from pocketclip.data.shard import ShardReader
from pocketclip.evaluate.results import SplitFacts


class SplitReader:
    """Decodes the pictures of a split one by one and remembers what it saw.

    Args:
        folder: packed folder.
        split: its name.
        limit: read at most so many pictures, evenly spaced; None for all.

    Raises:
        ValueError: no such split, or nothing in it.
        OSError: the folder cannot be read.
    """

    def __init__(self, folder: Path, split: str, *, limit: int | None = None) -> None:
        self.split = split
        self._folder = Path(folder)
        self._paths = split_shards(self._folder, split)
        size = read_index(self._folder).num_samples(split)
        if size == 0:
            raise ValueError(
                f"split {split!r} of {folder} is empty: pack more pictures, or leave it out of `splits`"
            )
        count = size if limit is None else min(size, limit)
        self._rows = [row * size // count for row in range(count)]
        self._keys: list[str] = []
        self._text_rows: list[int] = []
        self._texts: dict[str, int] = {}
        self._skipped: list[Dropped] = []

    def __len__(self) -> int:
        return len(self._rows)

    def pictures(self) -> Iterator[Image.Image]:
        """RGB pictures in the shards' order, with a progress bar; read them all, once."""
        wanted = iter(self._rows)
        row = next(wanted, None)
        start = 0
        with tqdm(
            total=len(self._rows),
            desc=f"evaluate {self.split}",
            unit="picture",
            mininterval=0.1 if sys.stderr.isatty() else 10,
        ) as bar:
            for path in self._paths:
                with ShardReader(path) as shard:
                    stop = start + len(shard)
                    while row is not None and row < stop:
                        image = self._read(shard, row - start, path=path)
                        if image is not None:
                            yield image
                        else:
                            bar.set_postfix(skipped=len(self._skipped))
                        bar.update()
                        row = next(wanted, None)
                    start = stop

    def facts(self) -> SplitFacts:
        """The queries, once all pictures have been read.

        Raises:
            ValueError: no picture could be read.
        """
        if not self._keys:
            first = self._skipped[0]
            raise ValueError(
                f"none of the {len(self._skipped)} pictures in {self.split!r} of {self._folder} can be read "
                f"(the first: {first.source}: {first.reason}); pack the folder again"
            )
        return SplitFacts(
            image_keys=tuple(self._keys),
            texts=tuple(self._texts),
            relevant=tuple((row,) for row in self._text_rows),
            skipped=tuple(self._skipped),
        )

    def _read(self, shard: ShardReader, row: int, *, path: Path) -> Image.Image | None:
        sample = shard[row]
        source = f"{path.parent.name}/{path.name}: {sample.key}.{sample.extension}"
        try:
            image = decode(sample.image, name=source)
        except PictureError as error:
            self._skipped.append(Dropped(source=source, reason=str(error)))
            return None
        self._keys.append(sample.key)
        self._text_rows.append(self._texts.setdefault(sample.captions[0], len(self._texts)))
        return image


def batched(pictures: Iterator[Image.Image], size: int) -> Iterator[list[Image.Image]]:
    """Lists of `size` pictures, the last one shorter."""
    batch: list[Image.Image] = []
    for picture in pictures:
        batch.append(picture)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
