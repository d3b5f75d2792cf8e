"""The doctor's findings as one page: pictures are in it, nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from pocketclip.data.picture import decode
from pocketclip.search.doctor.map import atlas, num_columns
from pocketclip.search.doctor.samples import Pictures
from pocketclip.search.media import thumbnail

if TYPE_CHECKING:
    from pocketclip.search.doctor.examine import Diagnosis
    from pocketclip.search.doctor.findings import CaptionFault, DuplicateGroup, Misfit

_THUMBNAIL_PX, _STRIP_PX = 200, 88
_TILES = ((1500, 64), (4000, 48), (10**9, 40))  # samples on the map at most -> pixels of each on its sheet
_IN_GROUP = 8  # pictures of a group that are shown
_LABELS = 14  # of clusters, on the map
_CAPTION = 240  # letters of a caption that are shown
_CAPTIONS_SHOWN = 20  # of each fault
_FAULTS: dict[CaptionFault, str] = {
    "empty": "Empty",
    "file name": "Names of files",
    "too long": "Longer than the model reads",
    "cut off": "Cut off",
    "repeated": "Repeated",
}


def draw_page(diagnosis: Diagnosis, *, listed: int) -> str:
    """The whole page, HTML.

    Args:
        diagnosis: what was found.
        listed: so many findings of each kind are shown.
    """
    page = _Page(diagnosis, listed=listed)
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    script = Path(__file__).with_name("page.js").read_text(encoding="utf-8")
    sections = (
        page.leaks(),
        page.duplicates(),
        page.misfits(),
        page.outliers(),
        page.captions(),
        page.lost(),
    )
    return "".join(
        (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; ',
            "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">",
            f"<title>Dataset doctor: {escape(_name(diagnosis.source))}</title><style>{style}</style></head><body>",
            page.head(),
            page.map(),
            *sections,
            page.foot(),
            f"<script>{script}</script></body></html>\n",
        )
    )


class _Page:
    """Parts of the page. Everything from the data set is escaped."""

    def __init__(self, diagnosis: Diagnosis, *, listed: int) -> None:
        self._found = diagnosis
        self._listed = listed
        self._pictures = Pictures()
        self._image = lru_cache(maxsize=32)(self._open)

    def head(self) -> str:
        found = self._found
        splits = ", ".join(f"{num:,} {escape(name)}" for name, num in found.splits.items())
        spare = sum(len(group.members) - 1 for group in found.duplicates)
        cards = (
            ("leaks", len(found.leaks), "groups of copies across splits"),
            ("duplicates", spare, f"spare copies in {len(found.duplicates):,} groups"),
            ("mislabelled", len(found.misfits), "captions that fit others better"),
            ("outliers", len(found.outliers), "pictures like no other"),
            ("captions", len(found.captions), "captions that are no good"),
            ("lost", len(found.lost), "samples that cannot be read"),
        )
        listed = "".join(
            f'<li><a class="{"some" if num else "none"}" href="#{name}"><b>{num:,}</b><span>{what}</span></a></li>'
            for name, num, what in cards
        )
        return (
            f"<header><h1>Dataset doctor</h1><p class=lead><code>{escape(_name(found.source))}</code>: "
            f"{len(found.samples):,} samples ({splits}), seen by <code>{escape(found.model)}</code></p></header>"
            f"<ul class=cards>{listed}</ul>"
        )

    def map(self) -> str:
        coverage = self._found.coverage
        num = len(coverage.sample_C)
        tile_px = next(px for most, px in _TILES if num <= most)
        sheet = atlas((self._image(int(sample)) for sample in coverage.sample_C), num, tile_px=tile_px)
        of_all = (
            "" if num == len(self._found.samples) else f" of {len(self._found.samples):,}, drawn at random"
        )
        rows = "".join(
            f"<tr><td>{escape(_short(cluster.caption, 90))}</td><td class=num>{cluster.num_samples:,}</td>"
            f"<td>{', '.join(f'{escape(name)} {count:,}' for name, count in cluster.splits.items())}</td>"
            f"<td class=num>{cluster.cosine:.2f}</td><td class=strip><div>"
            f"{''.join(self._img(number, px=_STRIP_PX) for number in cluster.examples[:6])}</div></td></tr>"
            for cluster in coverage.clusters
        )
        options = "".join(
            f"<option value={name}>{name}</option>" for name in ("split", "problem", "fit", "cluster")
        )
        return (
            f"<section><h2>What the set covers <span class=count>{num:,} samples{of_all}, by {coverage.projection}"
            "</span></h2><p class=muted>Pictures that the model finds alike lie together. Point at one to see it; "
            "scroll or press + to come closer, drag or use the arrow keys to move, 0 to go back.</p>"
            f"<div class=bar><label>Colour by <select id=colour-by>{options}</select></label>"
            "<span class=legend id=legend></span></div><div class=map><canvas id=map tabindex=0 role=img "
            'aria-label="Map of the samples; the table below says what it shows"></canvas>'
            "<div class=hover id=hover hidden><canvas></canvas><span class=caption></span><span class=key></span>"
            f'<span class="what muted"></span></div></div><img id=atlas hidden alt="" src="{_data(sheet, "webp")}">'
            f'<script type="application/json" id=map-data>{self._map_data(tile_px)}</script><div class=scroll><table>'
            "<tr><th>Most typical caption of a cluster</th><th class=num>samples</th><th>splits</th>"
            f"<th class=num>cosine</th><th>most typical pictures</th></tr>{rows}</table></div></section>"
        )

    def _map_data(self, tile_px: int) -> str:
        found, chosen = self._found, self._found.coverage.sample_C.tolist()
        splits = list(found.splits)
        sets = (
            {number for group in found.leaks for number in group.members},
            {number for group in found.duplicates for number in group.members},
            {misfit.sample for misfit in found.misfits},
            {outlier.sample for outlier in found.outliers},
            {caption.sample for caption in found.captions},
        )
        samples = [found.samples[number] for number in chosen]
        values = {
            "tile": tile_px,
            "columns": num_columns(len(chosen)),
            "splits": splits,
            "x": [round(float(x), 4) for x in found.coverage.place_C2[:, 0]],
            "y": [round(float(y), 4) for y in found.coverage.place_C2[:, 1]],
            "split": [splits.index(sample.split) for sample in samples],
            "label": [
                [_short(cluster.caption, 28), round(cluster.x, 4), round(cluster.y, 4)]
                for cluster in found.coverage.clusters[:_LABELS]
            ],
            "cluster": found.coverage.label_N[chosen].tolist(),
            "problem": [sum((number in one) << bit for bit, one in enumerate(sets)) for number in chosen],
            "fit": [round(float(found.own_N[number]), 3) for number in chosen],
            "key": [sample.key for sample in samples],
            "caption": [_short(sample.caption, 120) for sample in samples],
        }
        return json.dumps(values, separators=(",", ":"), ensure_ascii=True).replace("<", "\\u003c")

    def leaks(self) -> str:
        about = (
            "The same picture in several splits: what is learned by heart in one is asked for in another. "
            "<code>leaked.txt</code> names those to drop; the copies in the smallest split stay."
        )
        return self._section("leaks", "Leaks between splits", about, [*map(self._group, self._found.leaks)])

    def duplicates(self) -> str:
        about = (
            "Copies within a split, byte for byte or nearly: scaled, compressed again, a little lighter. The largest "
            "is kept; <code>duplicates.txt</code> names the others."
        )
        within = [group for group in self._found.duplicates if len(group.splits) == 1]
        return self._section("duplicates", "Duplicates", about, [*map(self._group, within)])

    def _group(self, group: DuplicateGroup) -> str:
        shown = [group.keep, *(member for member in group.members if member != group.keep)][:_IN_GROUP]
        figures = []
        for number in shown:
            split = _tag(self._found.samples[number].split, "bad" if len(group.splits) > 1 else "")
            kept = _tag("keep", "keep") if number == group.keep else ""
            figures.append(self._figure(number, f"{_tag(group.kind)} {split} {kept}"))
        rest = len(group.members) - len(shown)
        more = f"<span class=muted>and {rest:,} more</span>" if rest else ""
        return f"<div class=group>{''.join(figures)}{more}</div>"

    def misfits(self) -> str:
        about = (
            "Other captions fit the picture better than its own, and the caption fits other pictures better, far more "
            "so than is usual in this set. The best other caption is a suggestion. All are in "
            "<code>mislabelled.txt</code>, the worst first in <code>doctor.json</code>."
        )
        return self._section("mislabelled", "Mislabelled", about, [*map(self._misfit, self._found.misfits)])

    def _misfit(self, misfit: Misfit) -> str:
        sample, better = self._found.samples[misfit.sample], self._found.samples[misfit.better]
        return (
            f"<div class=misfit>{self._figure(misfit.sample, '', caption=False)}<dl><dt>its caption</dt>"
            f"<dd><span class=own>{escape(_short(sample.caption))}</span> <span class=num>{misfit.own:.2f}</span></dd>"
            f"<dt>fits better</dt><dd>{escape(_short(better.caption))} "
            f"<span class=num>{misfit.better_cosine:.2f}</span></dd><dt>{misfit.captions_better:.0%} of the other "
            f"captions fit the picture better, {misfit.pictures_better:.0%} of the other pictures fit the caption "
            f"better ({misfit.z:.1f} deviations)</dt></dl><figure>{self._img(misfit.better, px=_STRIP_PX)}"
            "<figcaption class=muted>whose it is</figcaption></figure></div>"
        )

    def outliers(self) -> str:
        about = (
            "Their nearest neighbours are far away: broken pictures, place holders, another subject, or just the rare "
            "ones that a set should keep. They are in <code>outliers.txt</code>, not in <code>drop.txt</code>."
        )
        items = [
            self._figure(one.sample, _tag(f"{one.z:.1f} deviations"))
            for one in self._found.outliers[: self._listed]
        ]
        return self._section(
            "outliers", "Outliers", about, items, num=len(self._found.outliers), frame="grid"
        )

    def captions(self) -> str:
        about = "Captions that teach nothing, or of which the model sees a part. They are in <code>captions.txt</code>."
        parts = []
        for fault, title in _FAULTS.items():
            some = [one for one in self._found.captions if one.fault == fault]
            rows = "".join(
                f"<tr><td class=key>{escape(self._found.samples[one.sample].key)}</td>"
                f"<td>{escape(_short(self._found.samples[one.sample].caption))}</td><td>{escape(one.note)}</td></tr>"
                for one in some[:_CAPTIONS_SHOWN]
            )
            if some:
                heading = f"<h3>{title} <span class=muted>{len(some):,}</span></h3>"
                parts.append(f"<div class=scroll>{heading}<table>{rows}</table></div>")
        return self._section("captions", "Captions", about, parts, num=len(self._found.captions))

    def lost(self) -> str:
        about = "What could not be read or decoded; training passes over it, or stops at it."
        rows = [
            f"<tr><td class=key>{escape(_name(lost.shard))}</td><td class=key>{escape(_name(lost.key))}</td>"
            f"<td>{escape(_name(lost.reason))}</td></tr>"
            for lost in self._found.lost[: self._listed]
        ]
        table = [f"<div class=scroll><table>{''.join(rows)}</table></div>"] if rows else []
        return self._section("lost", "Unreadable", about, table, num=len(self._found.lost))

    def foot(self) -> str:
        return (
            "<h2>Lists</h2><p class=muted>Beside this page lie lists of keys, one a line: <code>drop.txt</code> names "
            "what leaks, what is there twice byte for byte and what has no caption, the others what their names say; "
            "<code>doctor.json</code> holds everything.</p>"
        )

    def _section(
        self,
        name: str,
        title: str,
        about: str,
        items: Sequence[str],
        *,
        num: int | None = None,
        frame: str = "",
    ) -> str:
        total = len(items) if num is None else num
        shown = "".join(items[: self._listed])
        if not total:
            return f"<section id={name}><h2>{title} <span class=count>none found</span></h2></section>"
        rest = f", the first {self._listed:,} shown" if total > self._listed else ""
        return (
            f"<section id={name}><h2>{title} <span class=count>{total:,}{rest}</span></h2><p class=muted>{about}</p>"
            f'<div class="{frame}">{shown}</div></section>'
        )

    def _figure(self, number: int, tags: str, *, caption: bool = True) -> str:
        sample = self._found.samples[number]
        text = f"{escape(_short(sample.caption))}<br>" if caption else ""
        return (
            f"<figure>{self._img(number, px=_THUMBNAIL_PX)}<figcaption>{tags}{'<br>' if tags else ''}{text}"
            f"<span class=key>{escape(sample.key)}</span></figcaption></figure>"
        )

    def _img(self, number: int, *, px: int) -> str:
        alt = escape(_short(self._found.samples[number].caption, 80), quote=True)
        image = self._image(number)
        return (
            f'<img decoding=async alt="{alt}" src="{_data(thumbnail(image, longest_px=px), "jpeg")}" '
            f'width={image.width} height={image.height} style="height:auto">'
        )

    def _open(self, number: int) -> Image.Image:
        """A picture, small; grey where the shard was changed meanwhile."""
        sample = self._found.samples[number]
        try:
            image = decode(self._pictures.read(sample.place), name=sample.key)
        except (OSError, ValueError):
            return Image.new("RGB", (64, 64), (128, 128, 128))
        image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
        return image


def _tag(text: str, kind: str = "") -> str:
    return f'<span class="tag {kind}">{escape(text)}</span>'


def _data(encoded: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode()}"


def _short(text: str, most: int = _CAPTION) -> str:
    text = " ".join(_name(text).split())
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def _name(text: str) -> str:
    """A text that can be written as UTF-8, whatever file names are in it."""
    return text.encode(errors="backslashreplace").decode()
