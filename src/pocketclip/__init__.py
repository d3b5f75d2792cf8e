"""pocketclip: small, fast image-text models from your own data, shipped to devices."""

from __future__ import annotations

__version__ = "0.1.0"
