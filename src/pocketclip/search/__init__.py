"""Search: pictures by words or by pictures, on an exported model, without torch.

Names are imported when they are first used: a query does not pay for what indexes.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pocketclip.search.build import IndexConfig, IndexSummary, index
    from pocketclip.search.filters import Filter
    from pocketclip.search.query import SearchIndex
    from pocketclip.search.question import Found, Hit, Query
    from pocketclip.search.sheet import Row, SheetConfig, contact_sheet
    from pocketclip.search.store import Picture, Skipped

_HOMES = {
    "Filter": "filters",
    "Found": "question",
    "Hit": "question",
    "IndexConfig": "build",
    "IndexSummary": "build",
    "Picture": "store",
    "Query": "question",
    "Row": "sheet",
    "SearchIndex": "query",
    "SheetConfig": "sheet",
    "Skipped": "store",
    "contact_sheet": "sheet",
    "index": "build",
}

__all__ = [
    "Filter",
    "Found",
    "Hit",
    "IndexConfig",
    "IndexSummary",
    "Picture",
    "Query",
    "Row",
    "SearchIndex",
    "SheetConfig",
    "Skipped",
    "contact_sheet",
    "index",
]


def __getattr__(name: str) -> object:
    """Imports a name of the room when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pocketclip.search' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"pocketclip.search.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
