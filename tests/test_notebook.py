"""The notebook of first steps runs from its first cell to its last."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from command_server import CommandServer
from forked import IMPORTED
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "first_steps.ipynb"


def test_it_is_kept_without_outputs() -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 5
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


@pytest.fixture
def server() -> Iterator[CommandServer]:
    server = CommandServer(Path(sys.executable), os.environ | {"PYTHONPATH": str(ROOT)}, IMPORTED)
    yield server
    server.close()


@pytest.mark.slow
def test_every_cell_does_what_it_says(server: CommandServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder. A command that fails raises nothing in a notebook, so what they write is looked at."""
    command = tmp_path / "command" / "dualfid"  # of this checkout, whatever is installed
    shim = tmp_path / "bin" / "dualfid"
    for path in (command, shim):
        path.parent.mkdir()
    command.write_text("from dualfid_robot.cli import main\n\nmain()\n")
    server.write_shim(shim, command)
    monkeypatch.setenv("PATH", f"{shim.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()

    (run,) = tmp_path.glob("runs/first_*")
    for name in ("nn/last.pth", "transfer/heatmap.png", "export/policy.onnx"):
        assert (run / name).is_file(), name
    assert (tmp_path / "ant.mp4").stat().st_size > 10_000
    printed = "".join(
        output.text for cell in notebook.cells for output in cell.get("outputs", []) if output.output_type == "stream"
    )
    for words in (
        "iteration 40/40",
        "evaluate:   dualfid evaluate checkpoint=runs/first_",
        "return of 16 episodes",
        "exported to runs/first_",
    ):
        assert words in printed, printed
    assert "error" not in printed.lower() and "\x1b[" not in printed, printed
