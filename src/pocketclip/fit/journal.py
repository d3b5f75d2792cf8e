"""metrics.jsonl: one JSON object a line, appended as the run goes, cut back when it goes on from an earlier step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path


class Journal:
    """Appends records to a file.

    Args:
        path: of the file; made when missing.
        step: the run goes on after this many steps: later records, of a run that was killed, are removed.
    """

    def __init__(self, path: Path, *, step: int) -> None:
        self.path = path
        kept = [record for record in read_journal(path) if record["step"] <= step] if path.exists() else []
        whole = path.with_name(f".{path.name}.partial")
        whole.write_text("".join(json.dumps(record) + "\n" for record in kept))
        whole.replace(path)  # a kill at this moment leaves the old records

    def append(self, record: Mapping[str, float]) -> None:
        """Writes one record; it must have a `step`."""
        with self.path.open("a") as file:
            file.write(json.dumps(dict(record)) + "\n")


def read_journal(path: Path) -> list[dict[str, float]]:
    """The records of a metrics.jsonl; a last line that a kill cut short is left out."""
    records = []
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except ValueError:
            if number < len(lines):
                raise ValueError(
                    f"{path} line {number} is not JSON: delete the file to start its curves anew"
                ) from None
    return records
