"""A published set as a whole: its shards, what its views mean, whose its embeddings are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from pocketclip.data.foreign.published import SYNTHETIC, PublishedSample, read_published
from pocketclip.data.foreign.published_teachers import Generation
from pocketclip.data.foreign.published_views import SHIPPED_CONFIG, ViewLayout, layout_of, parse_config
from pocketclip.data.foreign.source import expand, is_pattern
from pocketclip.data.foreign.tars import Group, read_groups

CONFIG_FILE = "config.json"
_PROBED = 100  # samples of a shard that are asked which generation they are of


@dataclass(frozen=True, kw_only=True)
class PublishedSet:
    """Published shards.

    Attributes:
        paths: the tars in order.
        root: folder that their names are relative to.
        layout: of the views.
    """

    paths: Sequence[Path] = field(repr=False)
    root: Path
    layout: ViewLayout

    def generation(self, *, synthetic: str = SYNTHETIC, tag: str | None = None) -> Generation | None:
        """Which one it is, by where the rows of synthetic captions are; None where no sample tells.

        Args:
            synthetic: regular expression over the keys of synthetic captions to look at.
            tag: what follows the names of arrays; None for any.
        """
        for path in self.paths:
            groups = (group for group in read_groups(path) if isinstance(group, Group))
            for group in islice(groups, _PROBED):
                published = read_published(group, synthetic=synthetic, tag=tag)
                if isinstance(published, PublishedSample) and published.generation is not None:
                    return published.generation
        return None


def open_published(source: str, *, augment: Path | None = None) -> PublishedSet:
    """Finds published shards.

    Args:
        source: a folder of tars, a pattern with ranges in braces, or one tar.
        augment: the set's `config.json`; None takes the one beside the shards, else the shipped one.

    Raises:
        FileNotFoundError: a shard is not there.
        ValueError: there are none, or their views cannot be replayed.
    """
    paths, root = _shards(source)
    path = augment or root / CONFIG_FILE
    shipped = augment is None and not path.is_file()
    layout = layout_of(SHIPPED_CONFIG) if shipped else parse_config(path.read_bytes(), name=str(path))
    return PublishedSet(paths=paths, root=root, layout=layout)


def _shards(source: str) -> tuple[list[Path], Path]:
    if is_pattern(source):
        paths = [Path(name) for name in expand(source)]
        gone = [path for path in paths if not path.is_file()]
        if gone:
            raise FileNotFoundError(
                f"{len(gone)} of the {len(paths)} shards of {source} are not there, the first {gone[0]}"
            )
        if len(set(paths)) < len(paths):
            raise ValueError(f"{source} names a shard twice")
        return paths, Path(os.path.commonpath([path.parent for path in paths]))
    if Path(source).is_file():
        return [Path(source)], Path(source).parent
    if not Path(source).is_dir():
        raise FileNotFoundError(f"{source}: no such file or folder")
    found = [
        Path(folder, name)
        for folder, _, names in os.walk(source, followlinks=True)
        for name in names
        if name.casefold().endswith(".tar") and not name.startswith(".")
    ]
    if not found:
        raise ValueError(f"{source} holds no .tar")
    return sorted(found), Path(source)
