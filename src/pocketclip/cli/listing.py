"""`pocketclip list` and `pocketclip tag`: what an index shows without a query, and what words go with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from pocketclip.cli.search import hit_lines, hit_values
from pocketclip.cli.verbs import Outcome, UsageError

if TYPE_CHECKING:
    from pocketclip.search import SearchIndex
    from pocketclip.search.listings import Group

_NONE = "(default: none)"
_SHOWN = 20  # labels, of what was tagged


@dataclass(frozen=True, kw_only=True)
class List:
    """List what an index holds: albums, duplicates, outliers, tags.

    `albums` divides it into groups of like pictures, named by everyday words. `duplicates` are pictures that are nearly
    or exactly equal. `outliers` are like no other. `tags` counts what `pocketclip tag` has given.

    Examples:
        pocketclip list photos.index albums --num 12 --sheet albums.png
        pocketclip list photos.index duplicates --links duplicates/
        pocketclip list photos.index outliers -k 20
        pocketclip list photos.index tags --json
    """

    index: Positional[Path]
    """Folder written by `pocketclip index`."""
    what: Annotated[
        Positional[Literal["albums", "duplicates", "outliers", "tags"]],
        arg(metavar="albums|duplicates|outliers|tags"),
    ]
    """What to list."""
    num: Annotated[int | None, arg(help_behavior_hint="(default: by the size of the index)")] = None
    """Albums at most."""
    labels: Annotated[Path | None, arg(help_behavior_hint="(default: everyday words)")] = None
    """A file of names for albums, a line each."""
    k: Annotated[int, arg(aliases=["-k"])] = 10
    """How many pictures of each group are printed and drawn."""
    model: Annotated[Path | None, arg(help_behavior_hint="(default: as the index remembers)")] = None
    """The exported model, if it was moved."""
    links: Annotated[Path | None, arg(help_behavior_hint=_NONE)] = None
    """Make this folder, with a folder of links for each group, all its pictures."""
    sheet: Annotated[Path | None, arg(help_behavior_hint=_NONE)] = None
    """Draw the groups into this PNG."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Outcome:
        """Lists."""
        if self.k < 1 or (self.num is not None and self.num < 1):
            raise UsageError("-k and --num must be at least 1")
        from pocketclip.search.query import SearchIndex

        index = SearchIndex(self.index, model=self.model)
        if self.what == "tags":
            return _tags(index)
        groups = self._groups(index)
        written = self._write(groups, index)
        values = [{"title": group.title, "hits": hit_values(group.hits)} for group in groups]
        lines = [line for group in groups for line in self._lines(group, index)]
        return Outcome("\n".join([*lines, *written]) or f"no {self.what}", {"groups": values})

    def _groups(self, index: SearchIndex) -> list[Group]:
        if self.what == "albums":
            return index.albums(self.num, labels=read_labels(self.labels))
        if self.what == "duplicates":
            return index.duplicates()
        found = index.outliers(most=self.k)
        return [found] if found.hits else []

    def _lines(self, group: Group, index: SearchIndex) -> list[str]:
        shown = group.hits[: self.k]
        lines = [f"{group.title}: {len(group.hits)}" if self.what == "albums" else group.title]
        for hit, line in zip(shown, hit_lines(shown), strict=True):
            lines.append(f"  {line}")
            if self.what == "duplicates":
                copies = [path for path in index.reader.places(hit.id) if path != hit.path]
                lines += [f"  {'':11}{path}" for path in copies]
        if len(group.hits) > len(shown):
            lines.append(f"  and {len(group.hits) - len(shown)} more")
        return lines

    def _write(self, groups: Sequence[Group], index: SearchIndex) -> list[str]:
        lines = []
        if self.sheet and groups:
            from pocketclip.search.sheet import Row, contact_sheet

            contact_sheet([Row(title=group.title, hits=group.hits[: self.k]) for group in groups], self.sheet)
            lines.append(f"sheet: {self.sheet}")
        if self.links and groups:
            from pocketclip.search.results import write_groups

            num_copied = write_groups(groups, self.links, reader=index.reader)
            lines.append(f"links: {self.links}" + (f" ({num_copied} copied)" if num_copied else ""))
        return lines


@dataclass(frozen=True, kw_only=True)
class Tag:
    """Tag the pictures of an index with words, without training: each gets the labels that it matches.

    Tags are filters of `pocketclip search` (--tag). Tagging again replaces them; pictures that are indexed later have
    none until then.

    Examples:
        pocketclip tag photos.index
        pocketclip tag photos.index --label "our garden" "birthday cake" dog
        pocketclip tag photos.index --labels words.txt --most 3
    """

    index: Positional[Path]
    """Folder written by `pocketclip index`."""
    label: Annotated[
        tuple[str, ...], arg(metavar="LABEL ...", help_behavior_hint="(default: everyday words)")
    ] = ()
    """Words to tag with."""
    labels: Annotated[Path | None, arg(help_behavior_hint=_NONE)] = None
    """A file of words to tag with, a line each."""
    most: int = 5
    """Tags of a picture at most."""
    model: Annotated[Path | None, arg(help_behavior_hint="(default: as the index remembers)")] = None
    """The exported model, if it was moved."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Outcome:
        """Tags."""
        from pocketclip.search.query import SearchIndex

        labels = [*self.label, *read_labels(self.labels)]
        summary = SearchIndex(self.index, model=self.model).tag(labels, most=self.most)
        lines = [f"{summary.num_tagged} of {summary.num_items} pictures have tags"]
        lines += _count_lines(list(summary.counts.items())[:_SHOWN])
        if len(summary.counts) > _SHOWN:
            lines.append(f"{'':8} and {len(summary.counts) - _SHOWN} more: pocketclip list {self.index} tags")
        values = {"pictures": summary.num_items, "tagged": summary.num_tagged, "tags": dict(summary.counts)}
        return Outcome("\n".join(lines), values)


def read_labels(path: Path | None) -> list[str]:
    """Labels of a file, a line each; none without a file.

    Raises:
        ValueError: it holds none, or is not UTF-8.
        OSError: it cannot be read.
    """
    if path is None:
        return []
    from pocketclip.search.vocabulary import parse_list

    try:
        labels = parse_list(path.read_text(encoding="utf-8").splitlines())
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: save it as such, a label a line") from error
    if not labels:
        raise ValueError(f"{path} holds no labels: write one a line")
    return labels


def _tags(index: SearchIndex) -> Outcome:
    counts = index.reader.tag_counts()
    text = "\n".join(_count_lines(counts)) or "no tags: run `pocketclip tag` first"
    return Outcome(text, {"tags": dict(counts)})


def _count_lines(counts: Sequence[tuple[str, int]]) -> list[str]:
    return [f"{num:8} {label}" for label, num in counts]
