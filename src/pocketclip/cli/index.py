"""The verb `index`: folders of pictures into an index that can be searched."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from pocketclip.cli.terminal import say
from pocketclip.cli.verbs import Outcome, UsageError, some

if TYPE_CHECKING:
    from pocketclip.search import IndexSummary


@dataclass(frozen=True, kw_only=True)
class Index:
    """Embed the pictures of folders with an exported model, so that they can be searched.

    Only what is new or changed is looked at; interrupted, the same command goes on.

    Examples:
        pocketclip index photos/ --model exported/
        pocketclip index photos/ more/ --out photos.index --model exported/
        pocketclip index --out photos.index --watch
    """

    pictures: Annotated[
        Positional[tuple[Path, ...]],
        arg(metavar="[PICTURES ...]", help_behavior_hint="(default: those that the index holds)"),
    ] = ()
    """Folders of pictures, or folders written by `pocketclip pack`."""
    out: Annotated[
        Path | None, arg(help_behavior_hint="(default: $POCKETCLIP_INDEX, or your data folder)")
    ] = None
    """Folder of the index."""
    model: Annotated[
        Path | None, arg(help_behavior_hint="(default: as the index remembers, or $POCKETCLIP_MODEL)")
    ] = None
    """Folder written by `pocketclip export`."""
    split: Annotated[tuple[str, ...], arg(metavar="SPLIT ...", help_behavior_hint="(default: all)")] = ()
    """Splits of a packed folder."""
    watch: bool = False
    """Then keep it up to date, until you interrupt it."""
    forget: bool = False
    """Take the folders PICTURES out of the index; their files are left alone."""
    json: bool = False
    """Print JSON, a line for each pass when watching."""

    def run(self) -> Outcome:
        """Indexes."""
        from pocketclip.search.build import IndexConfig, Indexer
        from pocketclip.search.schema import default_index

        out = self.out or default_index()
        if self.forget:
            return self._forget(out)
        indexer = Indexer(out, model=self.model, config=IndexConfig(splits=self.split))
        if not self.watch:
            return _outcome(indexer.update(self.pictures))
        from pocketclip.search.watch import watch

        watch(indexer, self.pictures, announce=self._say)
        return Outcome("", {})

    def _forget(self, out: Path) -> Outcome:
        from pocketclip.search.build import forget

        if not self.pictures:
            raise UsageError("--forget which folders? Name them")
        num = forget(out, self.pictures)
        return Outcome(f"{num} pictures taken out of {out}", {"index": str(out), "gone": num})

    def _say(self, summary: IndexSummary) -> None:
        outcome = _outcome(summary)
        say(json.dumps(outcome.values) if self.json else outcome.text)


def _outcome(summary: IndexSummary) -> Outcome:
    changes = [
        f"{summary.num_new} new ({summary.pictures_per_second:.0f} a second)" if summary.num_new else "0 new",
        f"{summary.num_moved} moved or copied",
        f"{summary.num_gone} gone",
    ]
    lines = [f"{summary.num_items} pictures in {summary.path}: {', '.join(changes)}"]
    lines += some([(skipped.name, skipped.reason) for skipped in summary.skipped], what="skipped")
    values = {
        "index": str(summary.path),
        "pictures": summary.num_items,
        "new": summary.num_new,
        "moved": summary.num_moved,
        "gone": summary.num_gone,
        "skipped": [asdict(skipped) for skipped in summary.skipped],
    }
    return Outcome("\n".join(lines), values)
