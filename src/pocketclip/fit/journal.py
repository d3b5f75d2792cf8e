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
        partial = path.with_name(f".{path.name}.partial")
        try:
            partial.write_text("".join(json.dumps(record) + "\n" for record in kept))
            partial.replace(path)
        except OSError as error:
            raise _unwritable(path, error) from error

    def append(self, record: Mapping[str, float]) -> None:
        """Writes one record; it must have a `step`."""
        try:
            with self.path.open("a") as file:
                file.write(json.dumps(dict(record)) + "\n")
        except OSError as error:
            raise _unwritable(self.path, error) from error


def _unwritable(path: Path, error: OSError) -> OSError:
    remedy = "free some space or change the permissions, then run again to go on"
    return OSError(f"cannot write {path}: {error.strerror or error} ({remedy})")


def read_journal(path: Path) -> list[dict[str, float]]:
    """The records of a metrics.jsonl; a last line that a kill cut short is left out.

    Raises:
        ValueError: a line before the last is no record.
    """
    records = []
    lines = path.read_bytes().splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict) or "step" not in record:
                raise ValueError("no step")
            records.append(record)
        except ValueError:
            if number < len(lines):
                raise ValueError(
                    f"{path} line {number} is not a record of a step: delete the file to start its curves anew"
                ) from None
    return records
