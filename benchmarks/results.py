"""The file that a benchmark writes for programs: where and what was measured, and a row a system."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_json(path: Path | None, environment: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes what was measured so far, whole, so that who stops a benchmark keeps it; None = nowhere."""
    if path:
        part = path.with_suffix(".part")
        part.write_text(json.dumps({"environment": environment, "rows": rows}, indent=1) + "\n")
        os.replace(part, path)
