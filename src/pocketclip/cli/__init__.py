"""The command line, thin: parse, call a verb, print.

Exit codes: 0 done; 1 the verb could not do its job, and one sentence on standard error says why; 2 wrong usage;
130 interrupted.
"""

from __future__ import annotations

from pocketclip.cli.command import main

__all__ = ["main"]
