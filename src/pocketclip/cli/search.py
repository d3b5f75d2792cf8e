"""`pocketclip search`: words or a picture in, pictures out; printed, shown, kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import quote

from tyro.conf import Positional, arg

from pocketclip.cli.verbs import Outcome, UsageError

if TYPE_CHECKING:
    from pocketclip.search import Filter, Found, Hit, Query, SearchIndex

Preview = Literal["auto", "kitty", "sixel", "iterm", "none"]
_NONE = "(default: none)"


@dataclass(frozen=True, kw_only=True)
class Search:
    """Find pictures of an index by words, by a picture, or by both.

    Prints a line for each picture found: rank, cosine, place, moment of a video, caption. `-word` in the text excludes,
    quotes keep words together. Pictures that do not match are left out, as far as the index can tell. Without INDEX
    the words are looked for where `pocketclip index` puts its pictures by default.

    Examples:
        pocketclip search photos.index "a red bicycle"
        pocketclip search photos.index "beach -people" --from 2024-06 --to 2024-08 --links found/
        pocketclip search photos.index --picture bicycle.jpg --sheet found.png
        pocketclip search photos.index "in snow" --picture bicycle.jpg --text-weight 0.7
        pocketclip search photos.index --like 4711 --crop 0 0 0.5 0.5 --unique
        pocketclip search photos.index dog --near 52.52 13.405 10 --tag outdoors --csv dogs.csv
    """

    index: Annotated[
        Positional[str], arg(help_behavior_hint="(default: $POCKETCLIP_INDEX, or your data folder)")
    ] = ""
    """Folder written by `pocketclip index`."""
    text: Annotated[Positional[str], arg(help_behavior_hint="(or --picture, --like)")] = ""
    """What to look for."""
    picture: Annotated[Path | None, arg(help_behavior_hint=_NONE)] = None
    """A picture to find the like of; with TEXT, both count."""
    like: Annotated[int | None, arg(metavar="ID", help_behavior_hint=_NONE)] = None
    """More like this item of the index (its id, from --json)."""
    crop: Annotated[
        tuple[float, float, float, float] | None,
        arg(metavar="LEFT TOP RIGHT BOTTOM", help_behavior_hint="(default: all of it)"),
    ] = None
    """The part of the picture that counts, in fractions of its sides."""
    text_weight: float = 0.5
    """Of TEXT against the picture, 0 to 1."""
    exclude: Annotated[tuple[str, ...], arg(metavar="PHRASE ...", help_behavior_hint=_NONE)] = ()
    """What pictures should not show; as -PHRASE in TEXT."""
    k: Annotated[int, arg(aliases=["-k"])] = 10
    """How many pictures."""
    min_score: Annotated[str, arg(metavar="auto|none|COSINE")] = "auto"
    """Leave out what is below this cosine; `auto` works out where matches end."""
    unique: bool = False
    """Of near-duplicates show the nearest only."""
    taken_from: Annotated[str | None, arg(name="from", metavar="DATE", help_behavior_hint=_NONE)] = None
    """Taken then or later: 2024, 2024-05, 2024-05-01, 2024-05-01T12:00."""
    taken_to: Annotated[str | None, arg(name="to", metavar="DATE", help_behavior_hint=_NONE)] = None
    """Taken then or earlier; 2024 means to its end."""
    folder: Annotated[str | None, arg(name="in", metavar="FOLDER", help_behavior_hint=_NONE)] = None
    """In this folder or below."""
    kind: Annotated[
        tuple[Literal["picture", "raw", "video"], ...],
        arg(metavar="picture|raw|video ...", help_behavior_hint="(default: all)"),
    ] = ()
    """Only these."""
    tag: Annotated[tuple[str, ...], arg(metavar="TAG ...", help_behavior_hint=_NONE)] = ()
    """With all of these tags; `pocketclip tag` gives them."""
    near: Annotated[
        tuple[float, float, float] | None, arg(metavar="LATITUDE LONGITUDE KM", help_behavior_hint=_NONE)
    ] = None
    """Taken so near to a place."""
    min_px: Annotated[int | None, arg(help_behavior_hint=_NONE)] = None
    """Shorter side at least."""
    model: Annotated[Path | None, arg(help_behavior_hint="(default: as the index remembers)")] = None
    """The exported model, if it was moved."""
    sheet: Annotated[Path | None, arg(help_behavior_hint=_NONE)] = None
    """Draw the pictures found into this PNG."""
    csv: Annotated[Path | None, arg(help_behavior_hint=_NONE)] = None
    """Write the pictures found into this table."""
    links: Annotated[Path | None, arg(help_behavior_hint=_NONE)] = None
    """Make this folder of links to the pictures found."""
    preview: Preview = "auto"
    """Show the pictures in the terminal; `auto` where it can."""
    open: bool = False
    """Open the sheet, else the best picture, in the desktop's viewer."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Outcome:
        """Searches."""
        path, text = index_and_text(self.index, self.text)
        if not text.strip() and self.picture is None and self.like is None:
            raise UsageError('search needs words ("a red bicycle"), --picture FILE or --like ID')
        from pocketclip.search.query import SearchIndex

        query = self._query(text)
        index = SearchIndex(path, model=self.model, soon=True)
        found = index.search(query)
        written = self._write(found.hits, query, index)
        if self.open and found.hits:
            open_in_viewer(self.sheet or found.hits[0].path)
        values = {
            "nothing": found.nothing,
            "threshold": found.threshold,
            "searched": found.num_candidates,
            "seconds": found.seconds,
            "hits": hit_values(found.hits),
        }
        if self.json:
            return Outcome("", values)
        lines = [*preview_lines(found.hits, self.preview), *hit_lines(found.hits)]
        if found.nothing:
            lines.append(_nothing(found, len(index)))
        return Outcome("\n".join([*lines, *written]), values)

    def _query(self, text: str) -> Query:
        from pocketclip.search.question import Query

        image = None
        if self.picture is not None:
            from pocketclip.search.media import read_media

            image = next(iter(read_media(self.picture, name=str(self.picture)).frames)).image
        return Query(
            text=" ".join([text, *(f'-"{phrase}"' for phrase in self.exclude)]),
            image=image,
            like=self.like,
            crop=self.crop,
            text_weight=self.text_weight,
            where=self._where(),
            k=self.k,
            min_score=parse_min_score(self.min_score),
            unique=self.unique,
        )

    def _where(self) -> Filter:
        from pocketclip.search.filters import Filter

        folder = self.folder
        if folder is not None and Path(folder).is_dir():
            folder = str(Path(folder).absolute())
        return Filter(
            taken_from=self.taken_from,
            taken_to=self.taken_to,
            folder=folder,
            min_px=self.min_px,
            kinds=self.kind,
            tags=self.tag,
            near=self.near,
        )

    def _write(self, hits: Sequence[Hit], query: Query, index: SearchIndex) -> list[str]:
        """Writes what was asked for; lines that say so."""
        lines = []
        if self.sheet:
            from pocketclip.search.sheet import Row, contact_sheet

            title = query.text.strip() or (self.picture.name if self.picture else f"like {self.like}")
            contact_sheet([Row(title=title, hits=hits, image=query.image)], self.sheet)
            lines.append(f"sheet: {self.sheet}")
        return [*lines, *write_found(hits, index, csv=self.csv, links=self.links)]


def index_and_text(index: str, text: str) -> tuple[Path, str]:
    """The index, and the words: a single argument that is no folder is words, for the default index."""
    from pocketclip.search.schema import default_index

    if not index:
        return default_index(), text
    if not text and not Path(index).is_dir() and default_index().is_dir():
        return default_index(), index
    return Path(index), text


def parse_min_score(text: str) -> float | Literal["auto"] | None:
    """`auto`, `none` or a number.

    Raises:
        UsageError: neither.
    """
    if text == "auto":
        return "auto"
    if text == "none":
        return None
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--min-score is {text!r}: it must be auto, none or a number of -1 to 1") from None


def hit_lines(hits: Sequence[Hit]) -> list[str]:
    """Rank, cosine, place and caption of each; places are links where a terminal shows them."""
    digits = len(str(max((hit.rank for hit in hits), default=1)))
    return [
        f"{hit.rank:{digits}}  {hit.score:6.3f}  {_linked(hit)}  {hit.caption or ''}".rstrip() for hit in hits
    ]


def hit_values(hits: Sequence[Hit]) -> list[Mapping[str, object]]:
    """Hits as plain data."""
    from pocketclip.search.results import values

    return [values(hit) for hit in hits]


def write_found(
    hits: Sequence[Hit], index: SearchIndex, *, csv: Path | None, links: Path | None
) -> list[str]:
    """Writes a table and a folder of links, where they are asked for; lines that say so."""
    from pocketclip.search.results import write_csv, write_links

    lines = []
    if csv:
        write_csv(hits, csv)
        lines.append(f"table: {csv}")
    if links:
        num_copied = write_links(hits, links, reader=index.reader)
        lines.append(f"links: {links}" + (f" ({num_copied} copied)" if num_copied else ""))
    return lines


def preview_lines(hits: Sequence[Hit], protocol: Preview) -> list[str]:
    """One picture of all hits, as the terminal takes it; nothing where it shows none."""
    if not hits or protocol == "none" or (protocol == "auto" and not sys.stdout.isatty()):
        return []
    from pocketclip.search.preview import detect, encode, strip, terminal_px

    chosen = detect(sys.stdout) if protocol == "auto" else protocol
    if chosen == "none":
        return []
    image = strip(
        [hit.thumbnail for hit in hits],
        [str(hit.rank) for hit in hits],
        width_px=terminal_px(sys.stdout),
    )
    return [encode(image, chosen)]


def open_in_viewer(path: Path) -> None:
    """Opens a file as a double click would.

    Raises:
        ValueError: this machine has no such command.
    """
    command = {"darwin": "open", "win32": "explorer"}.get(sys.platform, "xdg-open")
    program = shutil.which(command)
    if program is None:
        raise ValueError(f"--open needs the command {command}, which is not here: open {path} yourself")
    subprocess.Popen(
        [program, path], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def place(hit: Hit) -> str:
    """Path, and where it matters the sample of the shard or the moment of the video."""
    return f"{hit.path}#{hit.key}" if hit.key else f"{hit.path.parent / hit.name}"


def _linked(hit: Hit) -> str:
    """The place as a link (OSC 8) where a terminal shows it; a name cannot break out of it."""
    text = place(hit)
    if not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return text
    shown = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )
    return f"\x1b]8;;file://{quote(os.fsencode(hit.path))}\x1b\\{shown}\x1b]8;;\x1b\\"


def _nothing(found: Found, num_items: int) -> str:
    if not found.num_candidates:
        return f"nothing: none of the {num_items} pictures of the index passes the filter"
    return "nothing matches; --min-score none shows the nearest all the same"
