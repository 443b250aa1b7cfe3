"""A URDF's numbers in the imported robot, against hand-computed ones and against MuJoCo's own reading of URDFs."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import mujoco
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.importer import ImportedRobot, ImportOptions, import_urdf
from dualfid_robot.robots.model import RobotModel

BOX = "<collision><geometry><box size='0.2 0.4 0.6'/></geometry></collision>"
MASS = "<inertial><mass value='2'/><inertia ixx='0.1' iyy='0.1' izz='0.1'/></inertial>"


def imported(folder: Path, body: str, **options: object) -> ImportedRobot:
    path = folder / "robot.urdf"
    path.write_text(f"<robot name='r'>{body}</robot>", encoding="utf-8")
    return import_urdf(path, ImportOptions(**options))  # type: ignore[arg-type]


def link(name: str, content: str = MASS) -> str:
    return f"<link name='{name}'>{content}</link>"


def joint(name: str, parent: str, child: str, kind: str = "fixed", content: str = "") -> str:
    ends = f"<parent link='{parent}'/><child link='{child}'/>"
    return f"<joint name='{name}' type='{kind}'>{ends}{content}</joint>"


def lines(robot: ImportedRobot, part: str) -> list[str]:
    return [line for line in robot.decisions if part in line]


def tetrahedron() -> bytes:
    """Binary STL of the corners 0, x, y, z."""
    corners = np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)], np.float32)
    faces = ((0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3))
    data = b"\0" * 80 + struct.pack("<I", len(faces))
    return data + b"".join(struct.pack("<3f", 0, 0, 0) + corners[list(face)].tobytes() + b"\0\0" for face in faces)


# --- against MuJoCo's own reader -------------------------------------------------------------------------------------

NUMBER = st.floats(-1.0, 1.0).map(lambda value: round(value, 4))
TRIPLE = st.tuples(NUMBER, NUMBER, NUMBER)


def text(values: tuple[float, ...]) -> str:
    return " ".join(map(str, values))


@st.composite
def urdfs(draw: st.DrawFn) -> str:
    """A tree of up to seven links of every kind of joint that MuJoCo's reader has, at a fixed base."""
    parts = [link("l0", "")]
    for number in range(1, draw(st.integers(2, 7))):
        moments = draw(st.tuples(*[st.floats(0.5, 0.9)] * 3))
        inertial = (
            f"<inertial><origin xyz='{text(draw(TRIPLE))}' rpy='{text(draw(TRIPLE))}'/>"
            f"<mass value='{draw(st.floats(0.1, 5.0))}'/><inertia ixx='{moments[0]}' iyy='{moments[1]}'"
            f" izz='{moments[2]}' ixy='{draw(NUMBER) / 20}' ixz='0.01' iyz='0'/></inertial>"
        )
        size = draw(st.tuples(*[st.floats(0.01, 1.0)] * 3))
        shape = draw(
            st.sampled_from(
                [
                    f"<box size='{text(size)}'/>",
                    f"<sphere radius='{size[0]}'/>",
                    f"<cylinder radius='{size[0]}' length='{size[1]}'/>",
                ]
            )
        )
        pose = f"<origin xyz='{text(draw(TRIPLE))}' rpy='{text(draw(TRIPLE))}'/>"
        parts.append(link(f"l{number}", f"{inertial}<collision>{pose}<geometry>{shape}</geometry></collision>"))
        axis = draw(TRIPLE.filter(lambda axis: np.linalg.norm(axis) > 0.1))
        low = draw(st.floats(-3.0, -0.1))
        content = (
            f"<origin xyz='{text(draw(TRIPLE))}' rpy='{text(draw(TRIPLE))}'/><axis xyz='{text(axis)}'/>"
            f"<limit lower='{low}' upper='{draw(st.floats(0.0, 3.0))}'"
            f" effort='{draw(st.floats(0.5, 9.0))}' velocity='1'/>"
            f"<dynamics damping='{draw(st.floats(0.1, 1.0))}' friction='{draw(st.floats(0.1, 1.0))}'/>"
        )
        kind = draw(st.sampled_from(["revolute", "continuous", "prismatic", "fixed"]))
        parent = f"l{draw(st.integers(0, number - 1))}"
        parts.append(joint(f"j{number}", parent, f"l{number}", kind, content))
    return "".join(parts)


@pytest.mark.parametrize("collapse", [False, True])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=urdfs())
def test_the_model_is_that_of_mujocos_own_reader(collapse: bool, body: str, tmp_path: Path) -> None:
    """Bodies by name: poses, masses, centres of mass and inertia about them; joints: axes, ranges, dynamics; geoms."""
    robot = imported(tmp_path, body, base="fixed", collapse_fixed=collapse).compile()
    extension = f"<mujoco><compiler fusestatic='{str(collapse).lower()}' discardvisual='false'/></mujoco>"
    theirs = mujoco.MjModel.from_xml_string(f"<robot name='r'>{extension}{body}</robot>")
    # where fixed joints collapse, their root is the world
    names = {robot.body(i).name for i in range(1, robot.nbody)} - {"l0"}
    assert names == {theirs.body(i).name for i in range(1, theirs.nbody)} - {"l0"} and robot.nv == theirs.nv
    ours_data, their_data = mujoco.MjData(robot), mujoco.MjData(theirs)
    mujoco.mj_forward(robot, ours_data)
    mujoco.mj_forward(theirs, their_data)
    for name in names:
        first, second = robot.body(name), theirs.body(name)
        np.testing.assert_allclose(first.mass, second.mass, rtol=1e-12)
        np.testing.assert_allclose(ours_data.body(name).xpos, their_data.body(name).xpos, atol=1e-12)
        np.testing.assert_allclose(ours_data.body(name).xipos, their_data.body(name).xipos, atol=1e-12)
        inertia = [
            each.body(name).ximat.reshape(3, 3) * model.body(name).inertia @ each.body(name).ximat.reshape(3, 3).T
            for each, model in ((ours_data, robot), (their_data, theirs))
        ]
        np.testing.assert_allclose(inertia[0], inertia[1], atol=1e-8)
    for number in range(theirs.njnt):
        first, second = robot.joint(theirs.joint(number).name), theirs.joint(number)
        np.testing.assert_allclose(first.axis, second.axis, atol=1e-12)
        np.testing.assert_array_equal(first.type, second.type)
        assert robot.jnt_limited[first.id] == theirs.jnt_limited[number]
        if theirs.jnt_limited[number]:
            np.testing.assert_array_equal(first.range, second.range)
        np.testing.assert_array_equal(first.damping, second.damping)
        np.testing.assert_array_equal(first.frictionloss, second.frictionloss)
        np.testing.assert_array_equal(robot.jnt_actfrcrange[first.id], theirs.jnt_actfrcrange[number])
    places = [
        sorted(map(tuple, np.hstack((each.geom_xpos, model.geom_size)).round(9)))
        for each, model in ((ours_data, robot), (their_data, theirs))
    ]
    assert places[0] == places[1]


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_roll_pitch_and_yaw_turn_about_fixed_axes(tmp_path: Path) -> None:
    """Yaw after roll, both by a right angle: the child's x shows along y, and its y, turned to z by the roll, stays."""
    pose = f"<origin xyz='1 2 3' rpy='{math.pi / 2} 0 {math.pi / 2}'/>"
    model = imported(tmp_path, link("a") + link("b") + joint("j", "a", "b", "fixed", pose), base="fixed").compile()
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    np.testing.assert_allclose(data.body("b").xmat.reshape(3, 3)[:, 0], (0, 1, 0), atol=1e-15)
    np.testing.assert_allclose(data.body("b").xmat.reshape(3, 3)[:, 1], (0, 0, 1), atol=1e-15)
    np.testing.assert_array_equal(data.body("b").xpos, (1, 2, 3))


def test_two_links_become_one_by_steiners_theorem(tmp_path: Path) -> None:
    """2 kg at 0 and 6 kg at x = 4: the centre is at 3, and 2·9 + 6·1 = 24 kg m² come to y and z."""
    heavy = "<inertial><origin xyz='1 0 0'/><mass value='6'/><inertia ixx='0.3' iyy='0.3' izz='0.3'/></inertial>"
    body = link("a") + link("b", heavy) + joint("j", "a", "b", "fixed", "<origin xyz='3 0 0'/>")
    model = imported(tmp_path, body, base="free", collapse_fixed=True).compile()
    assert model.nbody == 2
    np.testing.assert_allclose(model.body_mass[1], 8.0)
    np.testing.assert_allclose(model.body_ipos[1], (3, 0, 0))
    np.testing.assert_allclose(sorted(model.body_inertia[1]), (0.4, 24.4, 24.4))


def test_a_free_base_stands_on_the_ground_and_gets_what_a_urdf_lacks(tmp_path: Path) -> None:
    limit = "<axis xyz='0 0 2'/><limit lower='-1' upper='2' effort='30' velocity='7'/>"
    body = link("a", MASS + BOX) + link("b") + joint("j", "a", "b", "revolute", limit)
    robot = imported(tmp_path, body)
    model = robot.compile()
    assert (model.nq, model.nv, model.nu) == (8, 7, 1)
    assert model.qpos0[2] == 0.3  # half of the box's height
    assert mujoco.mjtGeom(model.geom_type[model.geom("floor").id]) == mujoco.mjtGeom.mjGEOM_PLANE
    np.testing.assert_array_equal(model.actuator_gear[0], (30, 0, 0, 0, 0, 0))
    np.testing.assert_array_equal(model.actuator_ctrlrange[0], (-1, 1))
    np.testing.assert_array_equal(model.joint("j").axis, (0, 0, 1))
    assert lines(robot, "free base: it has a mass (2 kg)") and lines(robot, "j: <limit velocity> is not used")


@pytest.mark.parametrize(("kind", "control", "force"), [("position", (-1, 2), 30.0), ("velocity", (-7, 7), 30.0)])
def test_servos_are_limited_as_the_urdf_says(
    kind: str, control: tuple[float, float], force: float, tmp_path: Path
) -> None:
    limit = "<limit lower='-1' upper='2' effort='30' velocity='7'/>"
    body = link("a", "") + link("b") + joint("j", "a", "b", "revolute", limit)
    model = imported(tmp_path, body, actuators=kind, kp=40.0, kd=3.0).compile()
    np.testing.assert_array_equal(model.actuator_ctrlrange[0], control)
    np.testing.assert_array_equal(model.actuator_forcerange[0], (-force, force))
    assert model.actuator_gainprm[0, 0] == (40.0 if kind == "position" else 3.0)
    assert model.actuator_biasprm[0, 2] == -3.0


def test_an_impossible_inertia_is_that_of_the_collision_geometry(tmp_path: Path) -> None:
    """A box of 2 kg with edges 0.2, 0.4 and 0.6 m: m/12 (b² + c²)."""
    wrong = "<inertial><mass value='2'/><inertia ixx='1' iyy='0.1' izz='0.1'/></inertial>"
    robot = imported(tmp_path, link("a", wrong + BOX), base="free")
    inertia = robot.compile().body_inertia[1]
    expected = [2 / 12 * (a + b) for a, b in ((0.04, 0.16), (0.04, 0.36), (0.16, 0.36))]
    np.testing.assert_allclose(sorted(inertia), sorted(expected))
    assert lines(robot, "link a: no body has the moments of inertia 0.1 0.1 1")


def test_without_a_mass_the_density_gives_one(tmp_path: Path) -> None:
    """0.2·0.4·0.6 m³ of 500 kg/m³; and a frame fixed to it has none."""
    body = link("a", BOX) + link("frame", "") + joint("j", "a", "frame")
    robot = imported(tmp_path, body, base="free", density=500.0)
    model = robot.compile()
    np.testing.assert_allclose(model.body_mass[1:], (24.0, 0.0))
    assert lines(robot, "no mass: that of its collision geometry at 500 kg/m³")


def test_a_moving_link_of_nothing_is_a_small_ball(tmp_path: Path) -> None:
    body = (
        link("a", "")
        + link("b", "")
        + link("c")
        + joint("x", "a", "b", "prismatic", "<limit effort='1' velocity='1'/>")
    )
    robot = imported(tmp_path, body + joint("y", "b", "c", "continuous"))
    np.testing.assert_allclose(robot.compile().body("b").mass, 1e-3)
    assert lines(robot, "link b: no mass and no geometry, but it moves")


def test_a_mimic_joint_follows(tmp_path: Path) -> None:
    """Gravity off and the leader pushed: the follower is at -2 times the leader + 0.1."""
    limit = "<limit lower='-1' upper='1' effort='1' velocity='1'/>"
    body = "".join(link(name) for name in "abc") + joint("j", "a", "b", "revolute", limit)
    body += joint("k", "a", "c", "revolute", limit + "<mimic joint='j' multiplier='-2' offset='0.1'/>")
    robot = imported(tmp_path, body, base="fixed")
    model = robot.compile()
    assert model.nu == 1
    model.opt.gravity[:] = 0.0
    data = mujoco.MjData(model)
    data.ctrl[0] = 0.02
    for _ in range(2000):
        mujoco.mj_step(model, data)
    assert abs(data.joint("j").qpos[0]) > 0.05
    np.testing.assert_allclose(data.joint("k").qpos, -2.0 * data.joint("j").qpos + 0.1, atol=0.01)


def test_planar_and_floating_joints(tmp_path: Path) -> None:
    body = link("world", "") + link("a") + link("b") + joint("base", "world", "a", "floating", "<origin xyz='0 0 2'/>")
    body += joint("p", "a", "b", "planar", "<axis xyz='0 0 1'/>")
    model = imported(tmp_path, body, ground=False, height=2.0).compile()
    assert [mujoco.mjtJoint(kind).name for kind in model.jnt_type] == [
        "mjJNT_FREE",
        *("mjJNT_SLIDE", "mjJNT_SLIDE", "mjJNT_HINGE"),
    ]
    np.testing.assert_array_equal(model.qpos0[:3], (0, 0, 2))
    axes = model.jnt_axis[1:]
    np.testing.assert_allclose(axes @ axes[2], (0, 0, 1), atol=1e-15)
    np.testing.assert_allclose(axes[0] @ axes[1], 0.0, atol=1e-15)


@pytest.mark.parametrize(("base", "degrees"), [("auto", 0), ("fixed", 0), ("free", 6)])
def test_a_link_world_is_the_world(base: str, degrees: int, tmp_path: Path) -> None:
    robot = imported(tmp_path, link("world", BOX) + link("a") + joint("j", "world", "a"), base=base)
    model = robot.compile()
    assert model.nv == degrees and model.geom_bodyid[model.geom("world_collision").id] == 0


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("<limit effort='1' velocity='1'/>", "revolute joint without limits: it moves without bounds"),
        ("<limit lower='1' upper='-1' effort='1' velocity='1'/>", "lower 1 above upper -1"),
        ("<limit lower='0.5' upper='0.5' effort='1' velocity='1'/>", "it is fixed there"),
        ("<limit lower='0.5' upper='0.7' effort='1' velocity='1'/>", "0 is out of its range"),
        ("<limit lower='-1' upper='1' effort='1' velocity='1' apirate='3'/>", "<joint/limit@apirate> is not used"),
        ("<limit lower='-1' upper='1'/>", "no actuator: its largest effort is not given, or has no bound"),
        ("<limit lower='-1' upper='1' effort='inf'/>", "no actuator: its largest effort is not given, or has no bound"),
        ("<limit lower='-1' upper='1'/><limit lower='-2' upper='2'/>", "there is another before it"),
        ("<safety_controller k_velocity='3'/>", "<joint/safety_controller> is not used: bounds that"),
        ("<calibration rising='0'/>", "<joint/calibration> is not used: where the real robot's"),
        ("<dynamics damping='-1'/>", "negative damping or friction: 0 instead"),
    ],
)
def test_what_is_not_taken_over_is_said(content: str, expected: str, tmp_path: Path) -> None:
    body = link("a", "") + link("b") + joint("hip", "a", "b", "revolute", content)
    (line,) = lines(imported(tmp_path, body), expected)
    assert line.startswith(("joint hip: ", "hip: "))


def test_nothing_is_said_of_actuators_that_are_not_there(tmp_path: Path) -> None:
    body = link("a", "") + link("b") + joint("hip", "a", "b", "revolute", "<limit lower='-1' upper='1'/>")
    assert not lines(imported(tmp_path, body), "of kind motor")


def test_elements_of_other_programs_are_named(tmp_path: Path) -> None:
    extra = (
        "<gazebo reference='a'><mu1>0.2</mu1><kp>3</kp></gazebo><transmission name='t'><type>x</type></transmission>"
    )
    extra += "<sensor name='eye'/>"
    robot = imported(tmp_path, link("a", MASS + "<contact><restitution value='1'/></contact>") + extra)
    assert lines(robot, "gazebo a: <gazebo> (kp, mu1) is not used: settings of Gazebo")
    assert lines(robot, "transmission t: <transmission> (type) is not used")
    assert lines(robot, "sensor eye: <sensor> is not used: not known here")
    assert lines(robot, "link a: <link/contact/restitution> is not used: MuJoCo has no restitution")


def test_friction_of_a_contact_and_mujocos_extension_are_taken_over(tmp_path: Path) -> None:
    contact = "<contact><lateral_friction value='0.7'/><rolling_friction value='0.002'/></contact>"
    extra = "<mujoco><compiler boundmass='5'/><option timestep='0.003'><flag gravity='disable'/></option></mujoco>"
    model = imported(tmp_path, extra + link("a", MASS + BOX + contact), base="free").compile()
    np.testing.assert_array_equal(model.geom("a_collision").friction, (0.7, 0.005, 0.002))
    assert model.body_mass[1] == 5.0 and model.opt.timestep == 0.003
    assert model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_GRAVITY


def test_children_by_name_are_in_isaac_gyms_order(tmp_path: Path) -> None:
    body = "".join(link(name) for name in ("base", "b", "a", "b1", "a1"))
    for parent, child in (("base", "b"), ("base", "a"), ("b", "b1"), ("a", "a1")):
        body += joint(f"to_{child}", parent, child, "continuous")
    orders = [
        [model.body(i).name for i in range(1, model.nbody)]
        for order in ("file", "name")
        for model in [imported(tmp_path, body, base="free", ground=False, order=order).compile()]
    ]
    assert orders == [["base", "b", "b1", "a", "a1"], ["base", "a", "a1", "b", "b1"]]


def test_links_pass_through_each_other_where_asked(tmp_path: Path) -> None:
    body = "".join(link(name, MASS + BOX) for name in "abc")
    body += joint("j", "a", "b", "continuous") + joint("k", "b", "c", "continuous")
    assert lines(imported(tmp_path, body, base="free"), "a and c: they overlap when all joints are at 0")
    robot = imported(tmp_path, body, base="free", self_collision=False)
    assert not lines(robot, "overlap")
    model = robot.compile()
    data = mujoco.MjData(model)
    data.qpos[2] -= 0.01
    mujoco.mj_forward(model, data)
    touching = {frozenset(model.geom_bodyid[contact.geom].tolist()) for contact in data.contact}
    assert touching == {frozenset({0, 1}), frozenset({0, 2}), frozenset({0, 3})}


# --- meshes ----------------------------------------------------------------------------------------------------------


def mesh(filename: str, scale: str = "1 1 1", tag: str = "collision") -> str:
    return f"<{tag}><geometry><mesh filename='{filename}' scale='{scale}'/></geometry></{tag}>"


@pytest.mark.parametrize(
    ("filename", "place"),
    [
        ("package://dog/meshes/Ä hull.stl", "dog/meshes"),
        ("package://dog_description/meshes/Ä hull.stl", "dog/meshes"),
        ("package://dog/meshes/Ä hull.stl", "elsewhere/dog/meshes"),
        ("../meshes/Ä%20hull.stl".replace("%20", " "), "dog/meshes"),
        ("model://dog/meshes/%C3%84%20hull.stl", "dog/meshes"),
    ],
)
def test_meshes_are_found_and_written_beside_the_result(filename: str, place: str, tmp_path: Path) -> None:
    folder = tmp_path / "dog" / "urdf"
    for each in (folder, tmp_path / place):
        each.mkdir(parents=True, exist_ok=True)
    (tmp_path / place / "Ä hull.stl").write_bytes(tetrahedron())
    robot = imported(folder, link("a", MASS + mesh(filename)), package_path=(str(tmp_path / "elsewhere"),))
    robot.write(tmp_path / "out" / "my robot.xml")
    (tmp_path / "dog").rename(tmp_path / "gone")
    assert [path.name for path in (tmp_path / "out" / "my robot_files").iterdir()] == ["Ä hull.stl"]
    model = RobotModel(tmp_path / "out" / "my robot.xml").model
    assert model.nmeshvert == 4 and model.body_mass[1] == 2.0


def test_meshes_of_one_name_and_of_several_scales_stay_apart(tmp_path: Path) -> None:
    for name in ("left", "right"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "hull.stl").write_bytes(tetrahedron())
    (tmp_path / "left" / "hull.stl").write_bytes(tetrahedron().replace(struct.pack("<f", 1.0), struct.pack("<f", 3.0)))
    body = link("a", MASS + mesh("left/hull.stl") + mesh("right/hull.stl") + mesh("right/hull.stl", "2 2 -2"))
    imported(tmp_path, body).write(tmp_path / "out.xml")
    model = mujoco.MjModel.from_xml_path(str(tmp_path / "out.xml"))
    assert sorted(path.name for path in (tmp_path / "out_files").iterdir()) == ["hull.stl", "hull_2.stl"]
    lengths = sorted(
        np.ptp(model.mesh_vert[start : start + 4] @ np.eye(3), axis=0).max() for start in model.mesh_vertadr
    )
    assert len(lengths) == 3 and lengths[0] < lengths[1] < lengths[2]


def test_a_mesh_gives_mass_properties_of_its_hull(tmp_path: Path) -> None:
    """A tetrahedron with three unit edges has the volume 1/6 and its centre at 1/4."""
    (tmp_path / "hull.stl").write_bytes(tetrahedron())
    model = imported(tmp_path, link("a", mesh("hull.stl")), base="free", density=600.0).compile()
    np.testing.assert_allclose(model.body_mass[1], 100.0, rtol=1e-6)
    np.testing.assert_allclose(model.body_ipos[1], (0.25, 0.25, 0.25), rtol=1e-6)


def test_visuals_that_mujoco_cannot_have_are_left_out_by_name(tmp_path: Path) -> None:
    flat = tetrahedron()[:84].replace(struct.pack("<I", 4), struct.pack("<I", 1)) + tetrahedron()[84:134]
    (tmp_path / "flat.stl").write_bytes(flat)
    (tmp_path / "hull.stl").write_bytes(tetrahedron())
    (tmp_path / "broken.obj").write_bytes(b"v 1 2\nf 1 2 9\n")
    visuals = "".join(mesh(name, tag="visual") for name in ("broken.obj", "missing.stl", "hull.stl"))
    robot = imported(tmp_path, link("a", MASS + mesh("hull.stl") + visuals))
    assert lines(robot, "missing.stl: <visual> is left out: no such file")
    assert lines(robot, "broken.obj: <visual> is left out: ")
    assert set(robot.files) == {"hull.stl"} and robot.compile().ngeom == 3  # with the floor


# --- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "links without a joint above: \\[\\]; one is expected"),
        (link("a") + link("b"), r"\['a', 'b'\]; one is expected"),
        (link("a") + link("a"), "link a: there are two of that name"),
        (link("a") + joint("j", "a", "c"), "joint j: there is no link c"),
        (link("a") + link("b") + joint("j", "a", "b", "screw"), "type=screw: allowed are"),
        (link("a", mesh("no.stl")), "link a: mesh no.stl: no such file"),
        (link("a", "<collision><geometry><cone/></geometry></collision>"), r"has the shape \['cone'\]; allowed are"),
        (link("a", "<inertial><mass value='nan'/></inertial>"), "value='nan' of <mass>: a finite number is expected"),
        (link("a", "<inertial><origin xyz='1 2'/></inertial>"), "xyz='1 2' of <origin>: 3 finite numbers are expected"),
        ("<xacro:macro xmlns:xacro='http://www.ros.org/wiki/xacro'/>", "is a xacro"),
        ("<link/>", "<link> has no name"),
    ],
)
def test_what_is_wrong_is_one_line(body: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        imported(tmp_path, body)
    assert "robot.urdf" in str(caught.value) and "\n" not in str(caught.value)
