"""Actuators with memory, servo gains of single worlds, and what of actuators is refused.

The laws themselves, against closed forms, are measured by test_physics.py; what an engine refuses is in engines.py.
"""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np
import pytest
import torch
from engines_under_test import Make, refused, skip_missing
from torch import Tensor

from dualfid_robot.conformance.cases import CASES
from dualfid_robot.conformance.parameters import NEW_PARAMETERS, settable
from dualfid_robot.conformance.robots import ANT, DELAYED, DT, SERVO, STATEFUL
from dualfid_robot.conformance.worlds import difference, everyone, put, random_states, run, set_parameter, state, step
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.base import Simulator

RobotOf = Callable[..., RobotModel]

N = 6
MEMORIES = {"actuator delay": DELAYED, "actuators with a state": STATEFUL}


def controls(robot: RobotModel, periods: int, seed: int = 0) -> Tensor:
    """(periods, N, nu), within and beyond control ranges."""
    return 1.5 * torch.randn(periods, N, robot.model.nu, generator=torch.Generator().manual_seed(seed))


def drive(simulators: list[Simulator], ctrls: Tensor, n: int = N) -> None:
    for ctrl in ctrls:
        for simulator in simulators:
            step(simulator, ctrl, n)


@pytest.fixture(params=list(MEMORIES))
def moving(request: pytest.FixtureRequest, engine: str, make: Make) -> Callable[[], Simulator]:
    """Makes worlds of a robot whose actuators have a memory, in mid-motion; the engine may refuse it by name."""
    name, robot = request.param, MEMORIES[request.param]
    if name in CASES[engine].refuses:
        with refused(engine, name):
            make(engine, robot, N)
        pytest.skip(f"{engine} refuses it by name")

    def build() -> Simulator:
        simulator = make(engine, robot, N)
        put(simulator, *random_states(robot, N))
        drive([simulator], controls(robot, 3))
        return simulator

    return build


def test_a_reset_forgets(moving: Callable[[], Simulator], engine: str, make: Make) -> None:
    """Worlds put into a state, by ids or by a mask, go on as those of a new simulator do."""
    reset, masked = moving(), moving()
    robot = reset.robot
    new = make(engine, robot, N)
    qpos, qvel = random_states(robot, N, seed=1)
    ids, device = torch.tensor([4, 1]), reset.device
    put(new, qpos, qvel)
    put(reset, qpos[ids], qvel[ids], ids)
    mask = torch.zeros(N, dtype=torch.bool)
    mask[ids] = True
    masked.set_state_where(mask.to(device), qpos.to(device), qvel.to(device))
    drive([reset, masked, new], controls(robot, 6, seed=1))
    bound = CASES[engine].bound("reset of a subset")
    assert difference(state(reset)[ids], state(new)[ids]) <= bound
    assert difference(state(masked), state(reset)) <= bound
    assert difference(state(reset)[0], state(new)[0]) > 1e-3  # the others remember


def test_a_failed_world_forgets(moving: Callable[[], Simulator], engine: str, make: Make) -> None:
    worlds = moving()
    robot = worlds.robot
    new = make(engine, robot, N)
    ids = torch.tensor([2])
    qpos, qvel = random_states(robot, 1)
    put(worlds, qpos, torch.full_like(qvel, float("nan")), ids)
    drive([worlds], controls(robot, 2)[1:])
    assert worlds.failed.nonzero().flatten().tolist() == [2]
    drive([worlds, new], controls(robot, 6, seed=1))
    assert difference(state(worlds)[ids], state(new)[ids]) <= CASES[engine].bound("non-finite isolation")


def test_a_snapshot_holds_it(moving: Callable[[], Simulator], engine: str, make: Make) -> None:
    worlds = moving()
    other = make(engine, worlds.robot, N)
    drive([worlds], controls(worlds.robot, 1, seed=2), 4)  # two worlds wait
    other.restore(worlds.snapshot())
    drive([worlds, other], controls(worlds.robot, 6, seed=1))
    assert difference(state(worlds), state(other)) <= CASES[engine].bound("snapshot")


def test_worlds_that_wait_keep_it(moving: Callable[[], Simulator], engine: str) -> None:
    worlds, twin = moving(), moving()
    drive([worlds], controls(worlds.robot, 2, seed=2), 4)
    drive([worlds, twin], controls(worlds.robot, 6, seed=1))
    assert difference(state(worlds)[4:], state(twin)[4:]) <= CASES[engine].bound("waiting worlds go on")
    assert difference(state(worlds)[:4], state(twin)[:4]) > 1e-3


def test_it_is_each_worlds_own(moving: Callable[[], Simulator], engine: str) -> None:
    worlds, twin = moving(), moving()
    ctrls = controls(worlds.robot, 6, seed=1)
    changed = ctrls.clone()
    changed[:, 3] *= -1
    drive([worlds], changed)
    drive([twin], ctrls)
    rest = torch.arange(N) != 3
    assert difference(state(worlds)[rest], state(twin)[rest]) <= CASES[engine].bound("subset stepping")
    assert difference(state(worlds)[3], state(twin)[3]) > 1e-3


@pytest.mark.parametrize("name", ["mujoco", "mujoco_reduced", "mujoco_warp"])
def test_states_of_actuators_are_mujocos(name: str, make: Make) -> None:
    """A second of MuJoCo's own steps, one world at a time: the same to the bit, or to single precision."""
    skip_missing(name)
    worlds = make(name, STATEFUL, N)
    model: mujoco.MjModel = worlds.model  # type: ignore[attr-defined]
    qpos, qvel = random_states(STATEFUL, N)
    put(worlds, qpos, qvel)
    ctrls = controls(STATEFUL, round(1 / DT))
    drive([worlds], ctrls)
    expected = torch.zeros(N, model.nq + model.nv)
    for i in range(N):
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:] = qpos[i].double().numpy(), qvel[i].double().numpy()
        for ctrl in ctrls[:, i]:
            data.ctrl[:] = ctrl.double().numpy()
            mujoco.mj_step(model, data, worlds.config.substeps)  # type: ignore[attr-defined]
        expected[i] = torch.from_numpy(np.concatenate([data.qpos, data.qvel])).float()
    assert difference(state(worlds), expected) <= (1e-4 if "warp" in name else 0.0)


@pytest.mark.parametrize("name", ["mujoco", "mujoco_reduced", "mujoco_warp"])
@pytest.mark.parametrize("steps", [1, 3, 8])
def test_a_delay_is_a_number_of_physics_steps(name: str, steps: int, make: Make, robot_of: RobotOf) -> None:
    """Whatever `nsample` the file has, and however long it lasts: 25 seconds of 480 Hz, at which single precision knows
    the time to 2e-6 s only."""
    skip_missing(name)
    body = '<body><joint name="slide" type="slide" axis="1 0 0"/><geom size="0.1" mass="1"/></body>'
    motor = f'<actuator><motor joint="slide" delay="{steps / 480}" nsample="2"/></actuator>'
    worlds = make(name, robot_of(body, motor), 1, dt=1 / 480, substeps=1)
    period, last, found = 13, 0.0, []
    for number in range(12000):
        step(worlds, torch.full((1, 1), 480.0 if number % period == 0 else 0.0))
        velocity = float(worlds.qvel[0, 0])
        if velocity - last > 0.5:
            found.append(number)
        last = velocity
    assert found == list(range(steps, 12000, period))


# --- Gains of single worlds ------------------------------------------------------------------------------------------


def test_servo_gains_stay_in_their_worlds_and_in_snapshots(engine: str, make: Make) -> None:
    if "position actuator" in CASES[engine].refuses:
        pytest.skip(f"{engine} refuses servos by name")
    worlds, twin, copy = (make(engine, SERVO, N) for _ in range(3))
    if "servo_stiffness" not in worlds.SUPPORTED_PARAMETERS:
        pytest.skip(f"{engine} cannot set them")
    ids = torch.tensor([5, 2])
    for name in ("motor_strength", "servo_stiffness", "servo_damping"):
        set_parameter(worlds, name, NEW_PARAMETERS[name](SERVO, 2), ids)
    for simulator in (worlds, twin):
        put(simulator, *random_states(SERVO, N))
    drive([worlds, twin], controls(SERVO, 6))
    apart = (state(worlds) - state(twin)).abs().amax(1)
    assert (apart[ids] > 1e-3).all()
    rest = [0, 1, 3, 4]
    bound = CASES[engine].bound("parameters stay in their worlds")
    assert difference(state(worlds)[rest], state(twin)[rest]) <= bound
    copy.restore(worlds.snapshot())
    drive([worlds, copy], controls(SERVO, 6, seed=1))
    assert difference(state(worlds), state(copy)) <= CASES[engine].bound("snapshot")


@pytest.mark.parametrize("name", ["servo_stiffness", "servo_damping"])
def test_gains_of_a_servo_need_one(engine: str, name: str, make: Make) -> None:
    worlds = make(engine, ANT, 2)
    assert name not in settable(worlds)
    with pytest.raises(ConfigError, match=rf"^parameter={name}: "):
        set_parameter(worlds, name, torch.ones(2, 8))


@pytest.mark.parametrize("name", ["mujoco", "mujoco_warp"])
def test_factors_on_gains_multiply_in_any_order(name: str, make: Make) -> None:
    skip_missing(name)
    worlds, twin = make(name, SERVO, 1), make(name, SERVO, 1)
    factors = {"motor_strength": 0.8, "servo_stiffness": 1.7, "servo_damping": 0.4}
    for parameter, factor in factors.items():
        set_parameter(worlds, parameter, torch.full((1, 3), factor))
    for parameter, factor in reversed(factors.items()):
        set_parameter(twin, parameter, torch.full((1, 3), 9.0))
        set_parameter(twin, parameter, torch.full((1, 3), factor))
    for simulator in (worlds, twin):
        put(simulator, *random_states(SERVO, 1))
        run(simulator, 0.3, torch.ones(1, 3))
    assert difference(state(worlds), state(twin)) <= 1e-6


# --- Refusals --------------------------------------------------------------------------------------------------------

HINGE = '<body name="arm"><joint name="hinge"/><geom name="bar" type="capsule" size="0.1 0.2" pos="0 0 0.1"/></body>'
BALL = '<body name="ball" pos="0 0 1"><freejoint/><geom size="0.1"/></body>'


def test_an_actuator_with_several_controls_is_refused(robot_of: RobotOf) -> None:
    motor = (
        '<actuator><dcmotor name="dc" joint="hinge" nominal="12 8 4" input="pos vel" controller="5 0 1"/></actuator>'
    )
    with pytest.raises(ConfigError, match=r"^robot\.xml: actuator dc: it has 2 controls; allowed is one$"):
        robot_of(HINGE, motor)


@pytest.mark.parametrize(
    ("motor", "named"),
    [
        ('<motor joint="elbow"/>', "elbow"),
        ('<motor joint="hinge" delay="0.1"/>', "delay"),
        ("<motor joint=hinge/>", "XML"),
    ],
)
def test_an_actuator_that_mujoco_refuses_is_named(robot_of: RobotOf, motor: str, named: str) -> None:
    with pytest.raises(ConfigError, match=rf"^asset file .*robot\.xml is not a valid MJCF: .*{named}"):
        robot_of(HINGE, f"<actuator>{motor}</actuator>")


@pytest.mark.parametrize("name", ["mujoco", "mujoco_warp"])
def test_the_centre_of_a_lone_body_cannot_move(name: str, make: Make, robot_of: RobotOf) -> None:
    """MuJoCo has compiled its mass matrix as a diagonal one, unless told not to."""
    skip_missing(name)
    worlds = make(name, robot_of(BALL + HINGE), 2)
    offsets = torch.zeros(2, 2, 3)
    offsets[:, 1, 0] = 0.1
    worlds.set_parameters(everyone(worlds), {"com": offsets})
    offsets[1, 0, 2] = 0.1
    with pytest.raises(ConfigError, match=r"^parameter=com: body ball of robot\.xml: "):
        worlds.set_parameters(everyone(worlds), {"com": offsets})
    told = make(name, robot_of(BALL.replace("<body", '<body simple="false"', 1) + HINGE), 2)
    told.set_parameters(everyone(told), {"com": offsets})
    run(told, 0.1)
    assert difference(state(told)[:1, :3], state(told)[1:, :3]) < 1e-3  # it falls as before, and does not turn
