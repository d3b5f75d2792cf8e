"""`python -m pocketclip`."""

from __future__ import annotations

from pocketclip.cli import main

main()
