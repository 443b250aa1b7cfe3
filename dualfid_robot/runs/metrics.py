"""A run's log `metrics.jsonl`, one line of JSON per iteration. A killed process may have left half a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The iterations of a log up to the first line that is not complete; none where there is no file."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not isinstance(row, dict) or "iteration" not in row:
            break
        rows.append(row)
    return rows
