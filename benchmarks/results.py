"""The JSON file of a benchmark: the environment, and one row per system."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_json(path: Path | None, environment: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write all results so far atomically, so that a stopped benchmark keeps them; None = no file."""
    if path:
        part = path.with_suffix(".part")
        part.write_text(json.dumps({"environment": environment, "rows": rows}, indent=1) + "\n")
        os.replace(part, path)
