"""Exports of untrained policies, made once for all tests of a session."""

from __future__ import annotations

from pathlib import Path

import pytest
from untrained import NUM_ENVS, SEED, ExportOf, make_checkpoint

from dualfid_robot.export.launch import export
from dualfid_robot.export.request import ExportRequest


@pytest.fixture(scope="session")
def export_of(tmp_path_factory: pytest.TempPathFactory) -> ExportOf:
    """The folder of an export, not to be written to: export_of("Ant", "num_envs=…", policy="dial").

    Its checkpoint is `checkpoint.pth` beside the folder. Further arguments are those of `ExportRequest`.
    """
    made: dict[tuple[object, ...], Path] = {}

    def exported(
        task: str, *overrides: str, policy: str = "adapted", formats: tuple[str, ...] = ("onnx", "torchscript")
    ) -> Path:
        key = (task, overrides, policy, formats)
        if key not in made:
            folder = tmp_path_factory.mktemp(f"export_{task}_{policy}")
            checkpoint = make_checkpoint(folder / "checkpoint.pth", task, *overrides)
            graphs = next((path for other, path in made.items() if other[:2] == (task, overrides)), None)
            export(checkpoint, ExportRequest(formats, policy, NUM_ENVS, SEED, graphs=graphs), folder / "export")
            made[key] = folder / "export"
        return made[key]

    return exported
