"""Search: pictures by words or by pictures, on an exported model, without torch."""

from __future__ import annotations

from pocketclip.search.build import IndexConfig, IndexSummary, index
from pocketclip.search.query import Hit, Query, SearchIndex
from pocketclip.search.sheet import Row, SheetConfig, contact_sheet
from pocketclip.search.store import Skipped

__all__ = [
    "Hit",
    "IndexConfig",
    "IndexSummary",
    "Query",
    "Row",
    "SearchIndex",
    "SheetConfig",
    "Skipped",
    "contact_sheet",
    "index",
]
