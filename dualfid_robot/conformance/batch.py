"""How the worlds of a batch are kept apart, saved and repeated."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from dualfid_robot.conformance.parameters import change_parameters
from dualfid_robot.conformance.properties import Build, measured
from dualfid_robot.conformance.robots import ANT
from dualfid_robot.conformance.worlds import difference, put, standing, state, step
from dualfid_robot.simulators.base import Simulator

N = 12


def controls(count: int) -> list[Tensor]:
    """Random controls of 12 Ants for some periods."""
    generator = torch.Generator().manual_seed(3)
    return [torch.rand(N, 8, generator=generator) * 2 - 1 for _ in range(count)]


def standing_ants(build: Build) -> Simulator:
    simulator = build(ANT, N, bodies=ANT.feet)
    put(simulator, *standing(ANT, N))
    return simulator


def drive(simulators: Iterable[Simulator], ctrls: Iterable[Tensor], n: int = N) -> None:
    for ctrl in ctrls:
        for simulator in simulators:
            step(simulator, ctrl, n)


def others(ids: Tensor) -> Tensor:
    """Mask of the worlds that are not among some."""
    mask = torch.ones(N, dtype=torch.bool)
    mask[ids] = False
    return mask


@measured("parameters stay in their worlds", of_one_world=False)
def parameters_stay(build: Build) -> float:
    """Some Ants get other values of every parameter, and are reset.

    The figure is how far the other worlds then differ from a twin without them.
    """
    ants, twin = standing_ants(build), standing_ants(build)
    ids = torch.tensor([7, 2, 3])
    change_parameters(ants, ids)
    drive((ants, twin), controls(4))
    for simulator in (ants, twin):
        put(simulator, *standing(ANT, 3), ids=ids)
    drive((ants, twin), controls(4))
    apart = (state(ants) - state(twin)).abs()[ids].amax(1)
    assert not ants.SUPPORTED_PARAMETERS or (apart > 1e-3).all(), "the parameters have no effect after a reset"
    return difference(state(ants)[others(ids)], state(twin)[others(ids)])


@measured("subset stepping", of_one_world=False)
def subset_stepping(build: Build) -> float:
    """Five of twelve Ants step on while the others wait: change of those that wait. The five are also compared with a
    twin in which all step."""
    ants, twin = standing_ants(build), standing_ants(build)
    drive((ants, twin), controls(2))
    frozen = state(ants)[5:]
    drive((ants,), controls(5)[2:], 5)
    drive((twin,), controls(5)[2:])
    return max(difference(state(ants)[5:], frozen), difference(state(ants)[:5], state(twin)[:5]))


@measured("waiting worlds go on", of_one_world=False)
def waiting_worlds_go_on(build: Build) -> float:
    """The Ants that have waited step on: difference from a twin in which they did not wait."""
    ants, twin = standing_ants(build), standing_ants(build)
    drive((ants, twin), controls(2))
    drive((ants,), controls(5)[2:], 5)
    drive((ants, twin), controls(7)[5:])
    return difference(state(ants)[5:], state(twin)[5:])


@measured("reset of a subset", of_one_world=False)
def subset_reset(build: Build) -> float:
    """Three of twelve Ants are put elsewhere in mid-motion: difference of the others from a twin without that."""
    ants, twin = standing_ants(build), standing_ants(build)
    drive((ants, twin), controls(3))
    ids = torch.tensor([10, 1, 6])
    qpos, qvel = standing(ANT, 3)
    qpos[:, 0] = torch.tensor([1.0, 2.0, 3.0])
    put(ants, qpos, qvel, ids)
    assert torch.equal(ants.qpos.cpu()[ids], qpos)
    assert not ants.contact_wrench.cpu()[ids].any()
    drive((ants, twin), controls(4)[3:])
    assert (ants.qpos.cpu()[ids, 0] - qpos[:, 0]).abs().max() < 0.1
    return difference(state(ants)[others(ids)], state(twin)[others(ids)])


@measured("non-finite isolation", of_one_world=False)
def non_finite_isolation(build: Build) -> float:
    """Two of twelve Ants get NaN or infinite states, and are reported and put back.

    The figure is how far the others differ from a twin without that.
    """
    worst = 0.0
    ids = torch.tensor([2, 7])
    initial = torch.from_numpy(ANT.model.qpos0).float().expand(2, -1)
    for value in (math.nan, math.inf, 1e30):
        ants, twin = standing_ants(build), standing_ants(build)
        drive((ants, twin), controls(1))
        qpos, qvel = standing(ANT, 2)
        qpos[0, 9], qvel[1, 2] = value, value
        put(ants, qpos, qvel, ids)
        drive((ants, twin), controls(2)[1:])
        assert torch.equal(ants.failed.cpu(), ~others(ids)), "the failed worlds are not reported"
        assert torch.equal(ants.qpos.cpu()[ids], initial), "the failed worlds are not put back"
        assert not ants.qvel.cpu()[ids].any(), "the failed worlds are not put back"
        drive((ants, twin), controls(3)[2:])
        assert not ants.failed.any(), "the failed worlds do not recover"
        assert torch.isfinite(state(ants)).all()
        worst = max(worst, difference(state(ants)[others(ids)], state(twin)[others(ids)]))
    return worst


@measured("snapshot", of_one_world=False)
def snapshot(build: Build) -> float:
    """A snapshot in mid-motion is restored into another simulator, with parameters of worlds and some worlds waiting.
    Difference of the two after seven further control periods."""
    ants, twin = standing_ants(build), standing_ants(build)
    change_parameters(ants, torch.tensor([0, 5, 11]))
    drive((ants,), controls(4))
    drive((ants,), controls(5)[4:], 7)
    saved = ants.snapshot()
    assert all(isinstance(array, np.ndarray) for array in saved.values())
    drive((twin,), controls(1))
    twin.restore(saved)
    assert torch.equal(state(twin), state(ants))
    drive((ants, twin), controls(12)[5:])
    return difference(state(ants), state(twin))


@measured("determinism", of_one_world=False)
def determinism(build: Build) -> float:
    """Two simulators have the same Ants and controls for twelve periods: difference."""
    ants, twin = standing_ants(build), standing_ants(build)
    drive((ants, twin), controls(12))
    return difference(state(ants), state(twin))
