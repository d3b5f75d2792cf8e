"""What a machine remembers of exported models: compiled towers, files that were hashed, backends that passed."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pocketclip.data.publish import PublishError, publish_file


def cache_folder() -> Path:
    """`$POCKETCLIP_CACHE`, else the user's cache folder. Deleting it costs time, nothing else."""
    if named := os.environ.get("POCKETCLIP_CACHE"):
        return Path(named)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "pocketclip"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pocketclip"


def remembered(question: object, answer: Callable[[], str]) -> str:
    """The answer to a question about this machine, worked out once.

    A cache that cannot be read or written is no failure: the answer is worked out.

    Args:
        question: JSON; everything that the answer depends on.
        answer: works it out.
    """
    asked = json.dumps(question, sort_keys=True)
    path = cache_folder() / "answers" / f"{hashlib.sha256(asked.encode()).hexdigest()}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(path.read_bytes())
        if kept["question"] == asked and isinstance(kept["answer"], str):
            return kept["answer"]
    found = answer()
    with suppress(OSError, PublishError), publish_file(path) as file:
        file.write(json.dumps({"question": asked, "answer": found}).encode())
    return found
