"""Exports of untrained policies, made once for all tests and processes of a session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from untrained import NUM_ENVS, SEED, ExportOf, make_checkpoint

from dualfid_robot.atomic import locked
from dualfid_robot.export.launch import export
from dualfid_robot.export.request import ExportRequest


@pytest.fixture(scope="session")
def export_of(tmp_path_factory: pytest.TempPathFactory) -> ExportOf:
    """The folder of an export, not to be written to: export_of("Ant", "num_envs=…", policy="dial").

    Its checkpoint is `checkpoint.pth` beside the folder. Further arguments are those of `ExportRequest`.
    """
    session = tmp_path_factory.getbasetemp()
    shared = session.parent if "PYTEST_XDIST_WORKER" in os.environ else session

    def exported(
        task: str, *overrides: str, policy: str = "adapted", formats: tuple[str, ...] = ("onnx", "torchscript")
    ) -> Path:
        of_task = shared / "exports" / " ".join([task, *overrides]).replace("/", "_")
        of_task.mkdir(parents=True, exist_ok=True)
        folder = of_task / " ".join([policy, *formats]) / "export"
        with locked(of_task, "export_of", wait=True):
            if not folder.is_dir():
                checkpoint = make_checkpoint(folder.parent / "checkpoint.pth", task, *overrides)
                graphs = next(of_task.glob("*/export"), None)
                export(checkpoint, ExportRequest(formats, policy, NUM_ENVS, SEED, graphs=graphs), folder)
        return folder

    return exported
