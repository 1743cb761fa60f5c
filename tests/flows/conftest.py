"""The stock hubble is run only where somebody has it."""

from __future__ import annotations

import os

collect_ignore = [] if os.environ.get("HUBBLE_CLI") else ["test_hubble_cli.py"]
