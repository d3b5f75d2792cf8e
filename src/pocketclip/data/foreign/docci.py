"""DOCCI's descriptions: JSON lines that name pictures of a folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from pocketclip.data.foreign.fields import parse_captions, parse_record
from pocketclip.data.foreign.folder import CaptionedFile
from pocketclip.data.index import Dropped

FIELDS = ("example_id", "split", "image_file", "description")


def read_docci(
    path: Path, *, pictures: Path, split: str = "train"
) -> tuple[list[CaptionedFile], list[Dropped]]:
    """Reads `docci_descriptions.jsonlines`: one description of about 136 words for each picture.

    Args:
        path: of the descriptions.
        pictures: folder of the files that they name.
        split: of the release: train, test, qual_dev or qual_test.

    Returns:
        The split's pictures in the file's order, and lines that cannot be used.

    Raises:
        ValueError: no line is DOCCI's, or the split has none.
    """
    found: list[CaptionedFile] = []
    dropped: list[Dropped] = []
    splits: Counter[str] = Counter()
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = parse_record(line)
                lacking = [field for field in FIELDS if not isinstance(record.get(field), str)]
                if lacking:
                    raise ValueError(f"no {', '.join(lacking)}")
            except ValueError as error:
                dropped.append(Dropped(source=f"{path.name}: row {number}", reason=str(error)))
                continue
            splits[str(record["split"])] += 1
            if record["split"] == split:
                found.append(
                    CaptionedFile(
                        path=pictures / str(record["image_file"]),
                        name=str(record["image_file"]),
                        captions=list(parse_captions(record["description"])),
                        meta={"example_id": record["example_id"]},
                    )
                )
    if not splits:
        first = f" ({dropped[0].source}: {dropped[0].reason})" if dropped else ""
        raise ValueError(f"{path} has no line of DOCCI's{first}: give docci_descriptions.jsonlines")
    if not found:
        raise ValueError(f"{path} has nothing of the split {split!r}: it has {', '.join(sorted(splits))}")
    return found, dropped
