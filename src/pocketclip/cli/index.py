"""The verb `index`: folders of pictures into an index that can be searched."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from pocketclip.cli.verbs import Outcome, some


@dataclass(frozen=True, kw_only=True)
class Index:
    """Embed the pictures of folders with an exported model, so that they can be searched.

    Only what is new or changed is looked at; interrupted, the same command goes on.

    Examples:
        pocketclip index photos/ --model exported/
        pocketclip index photos/ more/ --out photos.index --model exported/
        pocketclip index --out photos.index
    """

    pictures: Annotated[Positional[tuple[Path, ...]], arg(metavar="[PICTURES ...]")] = ()
    """Folders of pictures, or folders written by `pocketclip pack` (default: those that the index holds)."""
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
    json: bool = False
    """Print JSON."""

    def run(self) -> Outcome:
        """Indexes."""
        from pocketclip.search.build import IndexConfig, index
        from pocketclip.search.schema import default_index

        out = self.out or default_index()
        summary = index(self.pictures, out, model=self.model, config=IndexConfig(splits=self.split))
        changes = [
            f"{summary.num_new} new ({summary.pictures_per_second:.0f} a second)",
            f"{summary.num_moved} moved or copied",
            f"{summary.num_gone} gone",
        ]
        lines = [f"{summary.num_items} pictures in {out}: {', '.join(changes)}"]
        lines += some([(skipped.name, skipped.reason) for skipped in summary.skipped], what="skipped")
        values = {
            "index": str(out),
            "pictures": summary.num_items,
            "new": summary.num_new,
            "moved": summary.num_moved,
            "gone": summary.num_gone,
            "skipped": [asdict(skipped) for skipped in summary.skipped],
        }
        return Outcome("\n".join(lines), values)
