"""Factors on a robot: against MuJoCo's model of a file that was edited by hand, and closed forms in every engine."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dualfid_robot.config.machine import ASSETS
from dualfid_robot.conformance.robots import OWN
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.changes import Changes, parse_changes, position_bounds
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.base import Simulator
from dualfid_robot.simulators.pybullet.urdf import make_urdf
from dualfid_robot.simulators.registry import make_simulator

DT = 1 / 60
GRAVITY = 9.81
FILES = sorted(path for path in ASSETS.glob("*.xml") if path.stem != "anymal_robot")  # a part of others

# Values wherever MJCF can have them: in classes, an explicit inertia, degrees, a contact pair.
TEXT = """
<mujoco>
  <compiler angle="degree" autolimits="true"/>
  <option gravity="0.5 0 {gravity}"/>
  <default>
    <geom density="{density}" friction="{friction} 0.02 0.003"/>
    <default class="knee"><joint range="{knee}"/></default>
  </default>
  <worldbody>
    <geom name="floor" type="plane" size="0 0 1"/>
    <body name="base" pos="0 0 1">
      <freejoint/>
      <geom name="trunk" type="box" size="0.2 0.1 0.05"/>
      <body name="thigh" pos="0 0 -0.1">
        <joint name="hip" axis="0 1 0" range="{hip}"/>
        <joint name="free" axis="1 0 0"/>
        <inertial pos="0.1 0 0" mass="{thigh}" fullinertia="{inertia}"/>
        <geom name="thigh" type="sphere" size="0.03" mass="{weight}"/>
        <body name="shank" pos="0.3 0 0">
          <joint name="knee" class="knee"/>
          <geom name="shank" type="capsule" size="0.02 0.1" mass="{shank}"/>
          <body name="pin"><joint name="slide" type="slide" range="{slide}" armature="0.3"/><geom size="0.02"/></body>
        </body>
      </body>
    </body>
  </worldbody>
  <contact><pair geom1="floor" geom2="shank" friction="{pair}"/></contact>
</mujoco>
"""
NOMINAL: dict[str, object] = {
    "gravity": -9.81,
    "density": 900,
    "friction": 0.8,
    "knee": "-160 2",
    "hip": "-30 90",
    "thigh": 3,
    "inertia": "0.02 0.03 0.04 0.001 0.002 0.003",
    "weight": 7,
    "shank": 0.5,
    "slide": "-0.1 0.3",
    "pair": "0.6 0.4 0.02 0.003 0.003",
}
BY_HAND: dict[str, tuple[Changes, Mapping[str, object]]] = {
    "friction": (Changes(friction=0.5), {"friction": 0.4, "pair": "0.3 0.2 0.02 0.003 0.003"}),
    "gravity": (Changes(gravity=2.0), {"gravity": -19.62}),
    "mass": (
        Changes(mass=2.0),
        {"density": 1800, "thigh": 6, "inertia": "0.04 0.06 0.08 0.002 0.004 0.006", "weight": 14, "shank": 1},
    ),
    "joint_range": (Changes(joint_range=0.5), {"knee": "-119.5 -38.5", "hip": "0 60", "slide": "0 0.2"}),
}


def robot_of(folder: Path, values: Mapping[str, object], changes: Changes | None = None) -> RobotModel:
    text = TEXT.format(**NOMINAL | values)
    if "gravity" in values:
        text = text.replace('"0.5 0', '"1.0 0')
    path = folder / f"robot_{len(list(folder.iterdir()))}.xml"  # a model is read anew when it is compiled for an engine
    path.write_text(text)
    return RobotModel(path, ("shank",), changes or Changes())


def differing(one: mujoco.MjModel, other: mujoco.MjModel) -> list[str]:
    """Numeric fields in which two compiled models differ by more than rounding."""
    found = []
    for owner, another in ((one, other), (one.opt, other.opt)):
        for name in dir(owner):
            value = getattr(owner, name, None) if not name.startswith("_") else None
            if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
                expected = getattr(another, name)
                if value.shape != expected.shape or not np.allclose(value, expected, rtol=1e-9, atol=1e-12):
                    found.append(name)
    return found


@pytest.mark.parametrize("name", BY_HAND)
def test_a_change_is_the_file_edited_by_hand(name: str, tmp_path: Path) -> None:
    changes, edits = BY_HAND[name]
    changed = robot_of(tmp_path, {}, changes)
    nominal = robot_of(tmp_path, {})
    by_hand = robot_of(tmp_path, edits)
    assert differing(by_hand.model, nominal.model), "the edit does nothing"
    assert differing(changed.model, by_hand.model) == []
    for contacts in ("full", "feet"):
        one, other = (robot.compile(0.005, contacts=contacts) for robot in (changed, by_hand))
        assert differing(one, other) == []


@pytest.mark.filterwarnings("ignore:compiler attribute .settotalmass. is deprecated")
def test_a_total_mass_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "robot.xml"
    path.write_text(
        '<mujoco><compiler settotalmass="5"/><worldbody><body><joint type="slide"/><geom size="0.1"/></body>'
        '<body pos="1 0 0"><joint type="slide"/><geom size="0.2"/></body></worldbody></mujoco>'
    )
    assert RobotModel(path, (), Changes(mass=3.0)).model.body_mass.sum() == pytest.approx(15.0)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.stem))
def test_no_change_is_no_change_to_the_bit(path: Path) -> None:
    """The nominal robot is MuJoCo's own reading of the file, whatever number is written for 1."""
    robot = RobotModel(path, (), parse_changes({"friction": 1, "mass": 1.0}, "changes"))
    assert robot == RobotModel(path) and robot.changed(Changes()) is robot
    reference = mujoco.MjModel.from_xml_path(str(path))
    for name in ("body_mass", "body_inertia", "geom_friction", "jnt_range", "dof_invweight0", "body_invweight0"):
        assert np.array_equal(getattr(robot.model, name), getattr(reference, name)), name
    assert np.array_equal(robot.model.opt.gravity, reference.opt.gravity)


@settings(max_examples=30, deadline=None)
@given(factor=st.floats(0.05, 20.0))
def test_the_middle_of_a_range_stays(factor: float) -> None:
    humanoid = RobotModel(ASSETS / "humanoid.xml")
    before, after = humanoid.joint_limits, humanoid.changed(Changes(joint_range=factor)).joint_limits
    assert np.allclose(after.mean(1), before.mean(1), atol=1e-12)
    assert np.allclose(np.diff(after), factor * np.diff(before))


def test_bounds_of_positions(tmp_path: Path) -> None:
    robot = robot_of(tmp_path, {})
    lower, upper = position_bounds(robot.model)
    assert np.isinf(lower[:7]).all() and np.isinf(upper[:7]).all()
    joints = dict(zip(robot.joint_names, np.stack([lower, upper], 1)[7:].tolist(), strict=True))
    assert joints["hip"] == pytest.approx(np.radians([-30, 90])) and joints["slide"] == pytest.approx([-0.1, 0.3])
    assert joints["knee"] == pytest.approx(np.radians([-160, 2])) and joints["free"] == [-np.inf, np.inf]


@pytest.mark.parametrize(
    ("asset", "changes", "message"),
    [
        ("cartpole", {"friction": 2.0}, "changes.friction=2: cartpole.xml has no contacts with friction of their own"),
        ("cartpole", {"joint_range": 0.5}, "changes.joint_range=0.5: cartpole.xml has no limited hinge or slide joint"),
        ("franka_cabinet", {"gravity": 0.5}, "changes.gravity=0.5: franka_cabinet.xml has no gravity"),
    ],
)
def test_what_a_robot_lacks_cannot_be_changed(asset: str, changes: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        RobotModel(ASSETS / f"{asset}.xml", (), Changes(**changes))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mass": 0}, "changes.mass=0.0: must be a number in (0, 1000]"),
        ({"mass": -1.0}, "changes.mass=-1.0: must be a number in (0, 1000]"),
        ({"mass": float("inf")}, "changes.mass=inf: must be a number in (0, 1000]"),
        ({"mass": float("nan")}, "changes.mass=nan: a number is expected"),
        ({"mass": "two"}, "changes.mass=two: a number is expected"),
        ({"mass": True}, "changes.mass=True: a number is expected"),
        ({"mas": 2}, "changes.mas=2: no such setting; did you mean mass?"),
        (None, "changes=None: a mapping is expected"),
        ([1], "changes=[1]: a mapping is expected"),
    ],
)
def test_wrong_factors(given: object, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        parse_changes(given, "changes")


# In every engine -----------------------------------------------------------------------------------------------------

ENGINES: dict[str, dict[str, Any]] = {
    "mujoco": {"engine": "mujoco", "substeps": 8, "threads": 1},
    "pybullet": {
        "engine": "pybullet",
        "substeps": 8,
        "solver_iterations": 50,
        "contact_stiffness": 30000.0,
        "contact_damping": 600.0,
        "workers": 1,
    },
    "physx": {"engine": "physx", "substeps": 8, "workers": 1},
}
PACKAGES = {"pybullet": "pybullet", "physx": "sapien"}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[Any]:
    """build(robot, n, bodies=…, **changes) in each engine in turn."""
    package = PACKAGES.get(request.param)
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    made: list[Simulator] = []

    def build(robot: RobotModel, n: int, bodies: tuple[str, ...] = (), **changes: float) -> Simulator:
        made.append(make_simulator(ENGINES[request.param] | {"changes": changes}, robot, n, DT, bodies))
        return made[-1]

    yield build
    for simulator in made:
        simulator.close()


SLED = RobotModel(OWN / "sled.xml", ("sled",))
SLED_FRICTION = 0.4


def run(simulator: Simulator, seconds: float) -> None:
    ctrl = torch.zeros(simulator.num_worlds, simulator.robot.model.nu)
    for _ in range(round(seconds / DT)):
        simulator.step(ctrl, simulator.num_worlds)
    assert not simulator.failed.any()


def put_sled(simulator: Simulator, height: float, speed: float = 0.0) -> None:
    n = simulator.num_worlds
    qpos, qvel = torch.zeros(n, 7), torch.zeros(n, 6)
    qpos[:, 2], qpos[:, 3], qvel[:, 0] = height, 1.0, speed
    simulator.set_state(torch.arange(n), qpos, qvel)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_free_fall_under_changed_gravity(engine: Any, factor: float) -> None:
    simulator = engine(SLED, 2, gravity=factor)
    put_sled(simulator, 100.0)
    run(simulator, 1.0)
    fallen = 100.0 - simulator.qpos[:, 2].double().numpy()
    # A first-order integrator at 480 Hz is off by g h / 2 after a second.
    assert fallen == pytest.approx(factor * GRAVITY / 2, abs=1.2 * factor * GRAVITY / 480 / 2)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_sled_brakes_by_changed_friction(engine: Any, factor: float) -> None:
    simulator = engine(SLED, 2, friction=factor)
    put_sled(simulator, 0.05)
    run(simulator, 1.0)
    height = float(simulator.qpos[0, 2])
    put_sled(simulator, height, speed=2.0)
    deceleration = factor * SLED_FRICTION * GRAVITY
    run(simulator, 2.0 / deceleration + 0.1)
    assert simulator.qvel[:, 0].abs().max() < 0.05
    assert simulator.qpos[:, 0].double().numpy() == pytest.approx(2.0**2 / (2 * deceleration), rel=0.03)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_standing_sleds_weight(engine: Any, factor: float) -> None:
    simulator = engine(SLED, 1, ("sled",), mass=factor)
    put_sled(simulator, 0.05)
    run(simulator, 2.0)
    assert float(simulator.contact_wrench[0, 0, 2]) == pytest.approx(factor * 2.0 * GRAVITY, rel=0.02)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_joint_comes_to_rest_at_its_changed_limit(engine: Any, factor: float, tmp_path: Path) -> None:
    """A weight on a vertical slide sinks to the lower end of its range."""
    path = tmp_path / "robot.xml"
    path.write_text(
        '<mujoco><worldbody><body name="weight"><joint name="slide" type="slide" axis="0 0 1" damping="20" '
        'limited="true" range="-0.4 0.2"/><geom size="0.1" density="500" contype="0" conaffinity="0"/></body>'
        "</worldbody></mujoco>"
    )
    simulator = engine(RobotModel(path, ()), 1, joint_range=factor)
    run(simulator, 5.0)
    assert float(simulator.qpos[0, 0]) == pytest.approx(-0.1 - 0.3 * factor, abs=0.02)


def test_the_urdf_is_the_changed_robots(tmp_path: Path) -> None:
    """Masses, friction and limits in what PyBullet reads, from the Ant."""
    ant = RobotModel(ASSETS / "ant.xml", ("foot_1", "foot_2", "foot_3", "foot_4"))
    one, other = make_urdf(ant), make_urdf(ant.changed(Changes(friction=0.5, mass=2.0, joint_range=0.5)))
    assert sum(other.mass.values()) == pytest.approx(2 * sum(one.mass.values()))
    assert sum(other.mass.values()) == pytest.approx(2 * ant.model.body_mass.sum())
    assert other.friction == pytest.approx([0.5 * value for value in one.friction])
    limits = [
        {
            name: (float(lower), float(upper))
            for name, lower, upper in re.findall(
                r'<joint name="(\w+)" type="revolute">.*?<limit lower="(\S+)" upper="(\S+)"', urdf.text, re.DOTALL
            )
        }
        for urdf in (one, other)
    ]
    assert limits[0]["hip_1"] == pytest.approx(np.radians([-40, 40]))
    assert limits[1]["hip_1"] == pytest.approx(np.radians([-20, 20]))
    assert limits[1]["ankle_1"] == pytest.approx(np.radians([47.5, 82.5]))


def test_wrong_changes_of_an_engine_are_named() -> None:
    with pytest.raises(ConfigError, match=r"^mujoco\.changes\.frictoin=2: no such setting"):
        make_simulator(ENGINES["mujoco"] | {"changes": {"frictoin": 2}}, SLED, 1, DT)
    with pytest.raises(ConfigError, match=r"^mujoco\.changes=3: a mapping is expected"):
        make_simulator(ENGINES["mujoco"] | {"changes": 3}, SLED, 1, DT)
