"""MuJoCo Warp against MuJoCo itself, and what only this engine has: graphs of prefixes, masks, buffers that overflow.

What every engine promises is tested by test_contract.py and test_physics.py.
"""

from __future__ import annotations

import importlib.util
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mujoco
import pytest
import torch
from torch import Tensor

from dualfid_robot.conformance.batch import controls
from dualfid_robot.conformance.robots import DT
from dualfid_robot.conformance.worlds import put, set_parameter, standing, state, step
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.base import Simulator
from dualfid_robot.simulators.mujoco.simulator import MujocoSimulator
from dualfid_robot.simulators.mujoco_warp.simulator import MujocoWarpSimulator

RobotOf = Callable[..., RobotModel]
Warp = Callable[..., MujocoWarpSimulator]

N = 12  # of `controls`
NAN = float("nan")


@pytest.fixture(autouse=True)
def installed(request: pytest.FixtureRequest) -> None:
    if "make_warp" in request.fixturenames:
        pytest.importorskip("mujoco_warp", reason="MuJoCo Warp is not installed")


@pytest.fixture(params=["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_warp(device: str) -> Iterator[Warp]:
    """make_warp(robot, num_worlds, dt=…, bodies=…, **settings) on each device; all are closed at the end."""
    made: list[MujocoWarpSimulator] = []

    def build(
        robot: RobotModel, n: int, dt: float = DT, bodies: Sequence[str] = (), **settings: Any
    ) -> MujocoWarpSimulator:
        made.append(MujocoWarpSimulator(MujocoWarpSimulator.Config(**settings), robot, n, dt, bodies, device))
        return made[-1]

    yield build
    for simulator in made:
        simulator.close()


def mujoco_itself(robot: RobotModel, n: int, dt: float = DT, bodies: Sequence[str] = (), **settings: Any) -> Simulator:
    return MujocoSimulator(MujocoSimulator.Config(**settings), robot, n, dt, bodies)


def tumbling(robot: RobotModel, n: int) -> tuple[Tensor, Tensor]:
    """Ants in random poses, most of them in the ground, which throws them into the air."""
    generator = torch.Generator().manual_seed(1)
    qpos, _ = standing(robot, n)
    qpos[:, 2] = 0.3 + 0.3 * torch.rand(n, generator=generator)
    qpos[:, 3:7] = torch.nn.functional.normalize(torch.randn(n, 4, generator=generator), dim=1)
    return qpos, torch.randn(n, robot.model.nv, generator=generator)


def bit_equal(a: Simulator, b: Simulator, rows: slice = slice(None)) -> bool:
    return torch.equal(state(a)[rows], state(b)[rows])


# --- Against MuJoCo --------------------------------------------------------------------------------------------------

FULL = {"substeps": 8}
REDUCED = {"substeps": 2, "cone": "pyramidal", "iterations": 10, "contacts": "feet"}


@pytest.mark.parametrize("fidelity", [FULL, REDUCED], ids=["full", "reduced"])
def test_a_standing_ant_follows_mujoco_for_a_second(make_warp: Warp, ant: RobotModel, fidelity: dict[str, Any]) -> None:
    """Standing is stable, so errors of single precision do not grow, however long it lasts."""
    pair = [build(ant, 2, bodies=ant.feet, **fidelity) for build in (make_warp, mujoco_itself)]
    for simulator in pair:
        put(simulator, *standing(ant, 2))
        for _ in range(60):
            step(simulator, torch.zeros(2, 8))
    warp, reference = (state(simulator) for simulator in pair)
    weight = float(ant.model.body_mass.sum()) * 9.81
    force = pair[1].contact_wrench[0, :, 2].sum()
    assert float(force) == pytest.approx(weight, rel=0.02)
    torch.testing.assert_close(warp[:, :15], reference[:, :15], rtol=0, atol=1e-4)
    torch.testing.assert_close(warp[:, 29:], reference[:, 29:], rtol=0, atol=2e-3 * weight)


def test_tumbling_ants_follow_mujoco(make_warp: Warp, ant: RobotModel) -> None:
    """Ten control periods (1/6 s) from random poses, under random torques: hard impacts, then flight.

    MuJoCo itself is the measure of what single precision does to that: its trajectories from states that differ by
    one step of a float32 part by about as much.
    """
    warp = make_warp(ant, N, bodies=ant.feet)
    reference, shaken = mujoco_itself(ant, N, bodies=ant.feet), mujoco_itself(ant, N, bodies=ant.feet)
    qpos, qvel = tumbling(ant, N)
    for simulator in (warp, reference):
        put(simulator, qpos, qvel)
    sign = torch.randint(0, 2, qpos.shape, generator=torch.Generator().manual_seed(2)) * 2 - 1
    put(shaken, qpos + sign * torch.finfo(torch.float32).eps * qpos.abs().clamp(min=1.0), qvel)
    touched = torch.zeros(N, dtype=torch.bool)
    for ctrl in controls(10):
        for simulator in (warp, reference, shaken):
            step(simulator, ctrl)
        touched |= reference.contact_wrench.flatten(1).any(1)
    assert touched.float().mean() > 0.7
    assert (state(reference)[:, 7:15] - qpos[:, 7:]).abs().amax(1).min() > 0.1
    off, expected = ((state(other) - state(reference))[:, :29].abs().amax(1) for other in (warp, shaken))
    assert off.median() < 4 * expected.median()
    assert off.max() < 1e-3


def steepest_touching_capsule(model: mujoco.MjModel, qpos: Tensor) -> float:
    """Sine of the angle between the ground and the steepest capsule that touches it, by MuJoCo."""
    data = mujoco.MjData(model)
    data.qpos[:] = qpos.double().numpy()
    mujoco.mj_forward(model, data)
    touching = [int(contact.geom2) for contact in data.contact[: data.ncon]]
    capsules = [geom for geom in touching if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_CAPSULE]
    return max((abs(float(data.geom_xmat[geom, 8])) for geom in capsules), default=0.0)


@pytest.mark.parametrize("cone", ["elliptic", "pyramidal"])
def test_contact_wrenches_are_mujocos(make_warp: Warp, ant: RobotModel, cone: str) -> None:
    """One physics step from the same states: the wrench on feet and torso, and the velocities that it leads to.

    Pyramidal cones depend on how the tangents of a contact are turned, and MuJoCo Warp turns those of a capsule that is
    steeper than 60 degrees otherwise than MuJoCo.
    """
    n, bodies = 3 * N, ("torso", *ant.feet)
    pair = [build(ant, n, 1 / 480, bodies, substeps=1, cone=cone) for build in (make_warp, mujoco_itself)]
    qpos, qvel = tumbling(ant, n)
    qpos[:, 2] -= 0.2
    for simulator in pair:
        put(simulator, qpos, qvel)
        step(simulator, torch.cat(controls(3)))
    limit = 1.0 if cone == "elliptic" else math.sqrt(3) / 2 - 1e-3
    rows = [i for i in range(n) if steepest_touching_capsule(ant.model, qpos[i]) <= limit]
    assert len(rows) > 10
    warp, reference = (simulator.contact_wrench.cpu()[rows] for simulator in pair)
    size = reference.abs().amax(2)
    assert ((size > 1.0).sum(0) > 0).all(), "not every body is touched"
    assert ((size > 1.0).sum(1) > 1).any(), "no Ant touches with two bodies"
    torch.testing.assert_close(warp, reference, rtol=1e-3, atol=1e-4 * float(size.max()))
    torch.testing.assert_close(pair[0].qvel.cpu()[rows], pair[1].qvel[rows], rtol=1e-3, atol=1e-3)


def test_masses_scale_what_mujoco_derives_from_them(make_warp: Warp, ant: RobotModel) -> None:
    """Contacts and limits depend on inverse inertias at qpos0, which MuJoCo computes anew when a mass changes."""
    factors = 0.5 + torch.rand(N, len(ant.body_names), generator=torch.Generator().manual_seed(0))
    factors[3:5] = 1.0
    warp, reference, nominal = (build(ant, N) for build in (make_warp, mujoco_itself, mujoco_itself))
    for simulator in (warp, reference):
        set_parameter(simulator, "mass", factors)
    for simulator in (warp, reference, nominal):
        put(simulator, *tumbling(ant, N))
        for ctrl in controls(3):
            step(simulator, ctrl)
    changed = (factors != 1.0).any(1)
    assert (state(reference) - state(nominal)).abs().amax(1)[changed].min() > 0.05
    torch.testing.assert_close(state(warp), state(reference), rtol=1e-4, atol=5e-4)


# --- Prefixes --------------------------------------------------------------------------------------------------------


def test_the_state_is_shared_with_warp(make_warp: Warp, ant: RobotModel) -> None:
    simulator = make_warp(ant, 3)
    assert simulator.qpos.data_ptr() == simulator._worlds.data.qpos.ptr
    assert simulator.qvel.data_ptr() == simulator._worlds.data.qvel.ptr


def test_any_number_of_worlds_steps_as_all_would(make_warp: Warp, ant: RobotModel) -> None:
    """To the bit on the CPU; on CUDA the order of contacts, and with it the rounding of sums, changes between runs."""
    ants, twin = make_warp(ant, N, bodies=ant.feet, graphs=2), make_warp(ant, N, bodies=ant.feet)
    for n, ctrl in zip((N, 5, 1, 7, 5, 11, 1), controls(7), strict=True):
        for simulator in (ants, twin):
            put(simulator, *tumbling(ant, N))
        before = state(ants)
        step(ants, ctrl, n)
        step(twin, ctrl)
        assert torch.equal(state(ants)[n:], before[n:])
        rounding = 0.0 if ants.device.type == "cpu" else 1e-3
        torch.testing.assert_close(state(ants)[:n], state(twin)[:n], rtol=rounding, atol=rounding)
        assert len(ants._worlds._graphs) <= 2  # more numbers of worlds than graphs that are kept


# --- Masks -----------------------------------------------------------------------------------------------------------


def test_a_mask_resets_as_ids_do(make_warp: Warp, ant: RobotModel) -> None:
    ants, twin = make_warp(ant, N, bodies=ant.feet), make_warp(ant, N, bodies=ant.feet)
    for simulator in (ants, twin):
        put(simulator, *standing(ant, N))
        for ctrl in controls(3):
            step(simulator, ctrl)
    n, device = 9, ants.device
    mask = torch.zeros(n, dtype=torch.bool, device=device)
    mask[[1, 6]] = True
    qpos, qvel = (tensor.to(device) for tensor in tumbling(ant, n))
    ids = mask.nonzero().squeeze(1)
    twin.set_state(ids, qpos[ids], qvel[ids])
    qpos[~mask] = NAN  # rows outside the mask are ignored
    ants.set_state_where(mask, qpos, qvel)
    assert bit_equal(ants, twin)
    assert not ants.contact_wrench[ids].any()
    for simulator in (ants, twin):
        step(simulator, controls(4)[3])
    if device.type == "cpu":
        assert bit_equal(ants, twin)
    else:
        torch.testing.assert_close(state(ants), state(twin), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("cone", ["elliptic", "pyramidal"])
def test_a_failed_world_begins_anew_without_a_trace(make_warp: Warp, ant: RobotModel, cone: str) -> None:
    """It fails while in contact, so that its constraints are not finite either; then it is a new world to the bit."""
    ants = make_warp(ant, 4, bodies=ant.feet, cone=cone)
    for value in (NAN, float("inf"), 1e12):
        put(ants, *standing(ant, 4))
        for _ in range(20):
            step(ants, torch.zeros(4, 8))
        assert (ants.contact_wrench[..., 2] > 0).all()
        ants.qpos[1, 9], ants.qvel[2, 9] = value, value
        step(ants, torch.zeros(4, 8))
        assert ants.failed.tolist() == [False, True, True, False]
        new = make_warp(ant, 4, bodies=ant.feet, cone=cone)
        touched = torch.zeros(4, dtype=torch.bool, device=ants.device)
        for ctrl in controls(12):
            step(ants, ctrl[:4])
            step(new, ctrl[:4])
            assert not ants.failed.any()
            touched |= new.contact_wrench.flatten(1).any(1)
        assert touched[1:3].all()
        if ants.device.type == "cpu":
            assert bit_equal(ants, new, slice(1, 3))
        else:
            torch.testing.assert_close(state(ants)[1:3], state(new)[1:3], rtol=1e-2, atol=1e-2)


@pytest.mark.gpu
def test_a_step_does_not_make_the_host_wait(ant: RobotModel) -> None:
    pytest.importorskip("mujoco_warp")
    ants = MujocoWarpSimulator(MujocoWarpSimulator.Config(), ant, N, DT, ant.feet, "cuda:0")
    ctrl = controls(1)[0].cuda()
    qpos, qvel = (tensor.cuda() for tensor in standing(ant, N))
    mask = torch.arange(N, device="cuda:0") % 2 == 0
    ants.step(ctrl, N)  # the graph is recorded here
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            ants.step(ctrl, N)
            ants.set_state_where(mask, qpos, qvel)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    ants.close()


@pytest.mark.gpu
def test_steps_keep_their_place_on_any_stream(ant: RobotModel) -> None:
    pytest.importorskip("mujoco_warp")
    results = []
    for stream in (torch.cuda.default_stream(), torch.cuda.Stream()):
        ants = MujocoWarpSimulator(MujocoWarpSimulator.Config(), ant, N, DT, (), "cuda:0")
        with torch.cuda.stream(stream):
            put(ants, *standing(ant, N))
            for ctrl in controls(5):
                step(ants, ctrl)
            results.append(state(ants))
        ants.close()
    torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=1e-3)


# --- Buffers ---------------------------------------------------------------------------------------------------------


def lying(robot: RobotModel, n: int) -> tuple[Tensor, Tensor]:
    """Ants upside down and half in the ground: more contacts than when they stand."""
    qpos, qvel = standing(robot, n)
    qpos[:, 2], qpos[:, 3], qpos[:, 4] = 0.05, 0.0, 1.0
    return qpos, qvel


@pytest.mark.parametrize(("setting", "size"), [("njmax", 8), ("nconmax", 2)])
def test_a_buffer_that_overflows_is_reported(
    make_warp: Warp, ant: RobotModel, setting: str, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    ants = make_warp(ant, 4, bodies=ant.feet, **{setting: size})
    put(ants, *lying(ant, 4))
    with caplog.at_level(logging.WARNING):
        step(ants, torch.zeros(4, 8))
        assert 0 < ants.take_overflows() <= 4 * 8  # physics steps of all worlds
        assert f"{setting}={size} was too small" in caplog.text
        assert ants.take_overflows() == 0
        assert caplog.text.count("too small") == 1
        put(ants, *lying(ant, 4))
        step(ants, torch.zeros(4, 8), 2)
        assert 0 < ants.take_overflows() <= 2 * 8
        assert caplog.text.count("too small") == 1  # no more was needed


def test_buffers_sized_from_the_model_hold_all_that_happens(make_warp: Warp, ant: RobotModel) -> None:
    ants = make_warp(ant, 8, bodies=ant.feet)
    for states in (standing, tumbling, lying):
        put(ants, *states(ant, 8))
        for ctrl in controls(5):
            step(ants, ctrl[:8])
    assert ants.take_overflows() == 0


def test_sizes_of_the_ants_buffers(make_warp: Warp, ant: RobotModel) -> None:
    """A sphere has one contact with the plane, a capsule two; legs touch nothing else. Eight joints have limits."""
    assert make_warp(ant, 1).buffers == {"nconmax": 1 + 12 * 2, "njmax": 25 * 3 + 8}
    assert make_warp(ant, 1, cone="pyramidal").buffers == {"nconmax": 25, "njmax": 25 * 4 + 8}
    assert make_warp(ant, 1, contacts="feet").buffers == {"nconmax": 4 * 2, "njmax": 8 * 3 + 8}
    assert make_warp(ant, 1, nconmax=9, njmax=17).buffers == {"nconmax": 9, "njmax": 17}


def test_sizes_where_moving_geoms_meet(make_warp: Warp, robot_of: RobotOf) -> None:
    """Two boxes and a ball on three slabs: each with two slabs at once and with one other moving geom."""
    slab = '<geom type="box" size="1 1 .1" pos="{0} 0 0"/>'
    moving = '<body pos="{0} 0 2"><freejoint/><geom type="{1}" size=".1 .1 .1" condim="{2}"/></body>'
    boxes = moving.format(0, "box", 1) + moving.format(1, "box", 3) + moving.format(2, "sphere", 4)
    robot = robot_of("".join(slab.format(i) for i in range(3)) + boxes, '<default><geom condim="1"/></default>')
    contacts = (2 * 8 + 1) + (2 * 8 + 1) + (2 * 1 + 1)
    rows = (2 * 8 * 1 + 4) + (2 * 8 * 3 + 4) + (2 * 1 * 4 + 4)
    assert make_warp(robot, 1).buffers == {"nconmax": contacts, "njmax": rows}


# --- Refusals --------------------------------------------------------------------------------------------------------

BALL = '<body name="ball" pos="0 0 1"><freejoint name="free"/><geom size="0.1"/></body>'


@pytest.mark.parametrize(
    ("rest", "named"),
    [
        ('<option><flag fwdinv="enable"/></option>', "option flag fwdinv: what it switches on"),
        ('<option><flag sleep="enable"/></option>', "option flag sleep: bodies that sleep"),
        (
            '<sensor><framepos name="late" objtype="body" objname="ball" delay="0.01" nsample="5"/></sensor>',
            "sensor late: a delayed sensor",
        ),
        (
            '<option actuatorgroupdisable="3"/><actuator><motor name="off" joint="free" group="3"/></actuator>',
            "actuator off: a group of actuators that is switched off",
        ),
    ],
)
def test_what_it_does_not_support_is_named(make_warp: Warp, robot_of: RobotOf, rest: str, named: str) -> None:
    with pytest.raises(ConfigError, match=rf"^robot\.xml: {named} cannot be expressed for engine mujoco_warp$"):
        make_warp(robot_of(BALL, rest), 1)


def test_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, ant: RobotModel) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'^engine=mujoco_warp: not installed; pip install "dualfid_robot\[gpu\]"$'):
        MujocoWarpSimulator(MujocoWarpSimulator.Config(), ant, 1, DT)


@pytest.mark.parametrize("setting", ["substeps", "iterations", "nconmax", "njmax", "graphs"])
def test_settings_below_one_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{setting}=0: must be a whole number of at least 1"):
        MujocoWarpSimulator.Config(**{setting: 0})


def test_our_kernels_compile_for_a_gpu_that_is_not_there(ant: RobotModel, tmp_path: Path) -> None:
    """Those of MuJoCo Warp take minutes: benchmarks/gpu_compile.py."""
    pytest.importorskip("mujoco_warp", reason="MuJoCo Warp is not installed")
    from gpu_compile import compile_modules, used_modules

    simulator = MujocoWarpSimulator(MujocoWarpSimulator.Config(), ant, 2, DT, (), "cpu")
    simulator.step(torch.zeros(2, ant.model.nu), 2)
    simulator.close()
    ours = [name for name in used_modules() if name.startswith("dualfid_robot.")]
    sizes = compile_modules(ours, tmp_path)
    assert ours and all(size > 1000 for size in sizes.values())
