"""`python -m pocketclip`."""

from __future__ import annotations

import sys

from pocketclip.cli import main

sys.exit(main())
