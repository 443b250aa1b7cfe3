"""The order in which a file names its elements must not matter."""

from __future__ import annotations

import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dualfid_robot.conformance.properties import Build, measured
from dualfid_robot.conformance.robots import ANT, DT
from dualfid_robot.conformance.worlds import positions, put, run, standing
from dualfid_robot.robots.model import RobotModel


@measured("order in the file", "rad")
def order_in_the_file(build: Build) -> float:
    """The Ant's file has legs and actuators in reverse order.

    The figure is the difference of a flying Ant's joint angles after five control periods. Of standing Ants with a
    lifted leg each, that foot alone bears nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        other = RobotModel(_reversed(ANT.path, Path(folder)), ANT.feet)
        first, second = build(ANT, 4, bodies=ANT.feet), build(other, 4, bodies=ANT.feet)
    joints = [ANT.joint_names.index(name) for name in other.joint_names]
    actuators = [ANT.actuator_names.index(name) for name in other.actuator_names]
    assert joints != sorted(joints)
    assert actuators != sorted(actuators)

    def put_both(qpos: Tensor, qvel: Tensor) -> None:
        put(first, qpos, qvel)
        put(second, torch.cat([qpos[:, :7], qpos[:, 7:][:, joints]], 1), qvel)

    qpos, qvel = standing(ANT, 4)
    qpos[:, 2] += torch.tensor([2.0, 3.0, 4.0, 5.0])
    qpos[:, 7:] += 0.1 * torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    ctrl = 0.3 * torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    put_both(qpos, qvel)
    run(first, 5 * DT, ctrl)
    run(second, 5 * DT, ctrl[:, actuators])
    found = positions(first)[:, 7:]
    assert np.abs(found - qpos[:, 7:].numpy()).min() > 1e-3, "a joint does not move"
    residual = float(np.abs(found[:, joints] - positions(second)[:, 7:]).max())

    qpos, qvel = standing(ANT, 4)
    qpos[torch.arange(4), 8 + 2 * torch.arange(4)] *= 0.6  # the ankle of another leg in each world
    put_both(qpos, qvel)
    for simulator in (first, second):
        run(simulator, 4 * DT)
        loads = simulator.contact_wrench[..., 2].cpu()
        assert (loads.diagonal() == 0).all(), "a lifted foot bears a load"
        assert (loads.sum(1) > 1.0).all(), "the other feet bear nothing"
    return residual


def _reversed(path: Path, folder: Path) -> Path:
    """An MJCF at `path`, written to `folder` with sibling bodies and actuators in reverse order."""
    tree = ElementTree.parse(path)
    for parent in [*tree.iter("body"), *tree.iter("worldbody"), *tree.iter("actuator")]:
        movable = [child for child in parent if child.tag in ("body", "motor")]
        for child in movable:
            parent.remove(child)
        parent.extend(reversed(movable))
    tree.write(folder / "reversed.xml")
    return folder / "reversed.xml"
