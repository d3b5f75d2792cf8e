"""What is asked of a caption data set whose records lie apart from its pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Format = Literal["coco", "docci", "dci", "gbc", "recap-coco"]
FORMATS: tuple[Format, ...] = get_args(Format)

TEXTS: Mapping[Format, tuple[str, ...]] = {
    "coco": ("all",),
    "docci": ("description",),
    "dci": ("short", "extended", "complete"),
    "gbc": ("short", "long", "short-relation"),
    "recap-coco": ("recaption", "caption", "both"),
}
"""Which of its texts a data set can give; the first is the default."""


@dataclass(frozen=True, kw_only=True)
class AnnotationSpec:
    """What to read of which data set.

    Attributes:
        format: the data set's layout.
        pictures: folder of the pictures; None for where the release puts them.
        text: which of its texts (`TEXTS`); None for the first.
        licences: of MSCOCO: ids of the licences to keep; empty for all.
        split: of DOCCI: which of its own splits.

    Raises:
        ValueError: the data set has no such text, or no licences or splits to choose by.
    """

    format: Format
    pictures: str | None = None
    text: str | None = None
    licences: tuple[int, ...] = ()
    split: str | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"format {self.format!r} is none of {', '.join(FORMATS)}")
        if self.text is not None and self.text not in TEXTS[self.format]:
            raise ValueError(
                f"format {self.format} has no text {self.text!r}: it has {', '.join(TEXTS[self.format])}"
            )
        if self.licences and self.format != "coco":
            raise ValueError(f"licences are chosen by their ids in MSCOCO: format {self.format} has none")
        if self.split is not None and self.format != "docci":
            raise ValueError(f"DOCCI's records name their splits: format {self.format} has none")
