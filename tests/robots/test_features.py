"""Every field of MuJoCo's compiled model has its place in the table, and what an engine lacks is refused by name."""

from __future__ import annotations

from pathlib import Path

import mujoco
import pytest

from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.features import COMPUTING, DISABLE, ENABLE, FEATURES, check_features, table
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.registry import engine_class, engine_names

ARM = """<body name="arm"><joint name="hinge" range="-1 1" {joint}/><geom name="bar" size=".1" {geom}/>
<body name="tip" pos="1 0 0"><joint name="wrist" damping="1" stiffness="1" frictionloss="1"/>
<geom name="end" size=".1"/></body></body>"""
BALL = '<body name="ball" pos="0 0 1"><freejoint name="free"/><geom name="skin" size=".1"/></body>'
MOTOR = '<actuator><motor name="motor" joint="hinge" ctrlrange="-1 1" {}/></actuator>'


def arm(joint: str = "", geom: str = "") -> str:
    return ARM.format(joint=joint, geom=geom)


EXAMPLES: dict[str, tuple[str, str, str]] = {
    "fluid": (arm(), '<option density="1.2"/>', "option density, viscosity"),
    "actuators switched off": (
        arm(),
        MOTOR.format('group="2"') + '<option actuatorgroupdisable="2"/>',
        "actuator motor: a group",
    ),
    "equality": (arm(), '<equality><joint name="gear" joint1="hinge" joint2="wrist"/></equality>', "equality gear"),
    "tendon": (
        arm(),
        '<tendon><fixed name="cable" stiffness="1"><joint joint="hinge" coef="1"/></fixed></tendon>',
        "tendon cable",
    ),
    "contact pair": (arm(), '<contact><pair name="both" geom1="bar" geom2="end"/></contact>', "contact pair both"),
    "adhesion": (arm(geom='adhesion="1"'), "", "geom bar: adhesion"),
    "surface velocity": (arm(geom='surfacevel="1 0 0 0 0 0"'), "", "geom bar: a surface velocity"),
    "flex": (
        arm() + '<flexcomp name="cloth" type="grid" count="3 3 1" spacing=".1 .1 .1" dim="2" mass="1"/>',
        "",
        "flex cloth",
    ),
    "plugin": (
        arm(),
        '<extension><plugin plugin="mujoco.pid"><instance name="pid"/></plugin></extension>'
        '<actuator><plugin joint="hinge" plugin="mujoco.pid" instance="pid"/></actuator>',
        "plugin pid",
    ),
    "plasticity": (arm('stiffness="1" springyield="1"'), "", "option springyield: plasticity"),
    "mocap body": ('<body name="hand" mocap="true"/>' + arm(), "", "body hand: a mocap body"),
    "gravity compensation": (
        '<body name="float" gravcomp="1"><joint/><geom size=".1"/></body>',
        "",
        "body float: gravity",
    ),
    "several trees": (BALL + arm(), "", "body arm: a second tree"),
    "ball joint": ('<body><joint name="socket" type="ball"/><geom size=".1"/></body>', "", "joint socket: a ball"),
    "second free joint": (arm() + BALL, "", "joint free: a free joint that is not the first"),
    "passive forces on a free joint": (
        '<body><joint name="free" type="free" frictionloss="1"/><geom size=".1"/></body>',
        "",
        "joint free: a damped, sprung, armoured or rubbing",
    ),
    "nonlinear spring or damper": (arm('stiffness="3 1 0"'), "", "joint hinge: a nonlinear spring"),
    "margin of limits": (arm('margin="0.1"'), "", "joint hinge: a margin"),
    "armature of a slide": (arm('type="slide" armature="0.1"'), "", "joint hinge: armature of a slide"),
    "delayed sensor": (
        arm(),
        '<sensor><jointpos name="late" joint="hinge" delay="0.1" nsample="9"/></sensor>',
        "sensor late",
    ),
}
EXAMPLES |= {
    name: (
        arm(),
        MOTOR.format("")
        + '<equality><joint joint1="hinge" joint2="wrist"/></equality>'
        + f'<option integrator="discrete"><flag {name.removeprefix("flag ")}="{setting}"/></option>',
        f"option {name}",
    )
    for flags, setting in ((DISABLE, "disable"), (ENABLE, "enable"))
    for name in flags
}
"""A model with each feature, and how the error names it: worldbody, further sections, part of the message."""

NOT_COMPILED = {
    "free joint beside others",  # MuJoCo's own compiler refuses it
    "plugin with a state",  # none of those that come with MuJoCo has one without further files
}


def compiled(name: str) -> mujoco.MjModel:
    worldbody, rest, _ = EXAMPLES[name]
    return mujoco.MjModel.from_xml_string(
        f'<mujoco><compiler angle="radian"/>{rest}<worldbody>{worldbody}</worldbody></mujoco>'
    )


def test_every_field_of_the_model_is_in_the_table() -> None:
    """A field that MuJoCo adds later fails here, until somebody has said what engines do with it."""
    model = mujoco.MjModel.from_xml_string("<mujoco/>")
    fields = {name for name in dir(model) if not name.startswith("_") and not callable(getattr(model, name))}
    options = {f"opt.{name}" for name in dir(model.opt) if not name.startswith("_")}
    assert set(table()) == fields - {"opt"} | options


def test_every_flag_is_a_feature() -> None:
    """With MuJoCo's enumerations as they are compiled into its header: each has as many members as it says."""
    assert len(DISABLE) == int(mujoco.mjtDisableBit.mjNDISABLE)
    assert len(ENABLE) == int(mujoco.mjtEnableBit.mjNENABLE)


def test_no_field_is_said_to_have_no_effect_and_to_have_one() -> None:
    features = {field for feature in FEATURES.values() for field in feature.fields.split()}
    told = {field for field, groups in table().items() if len(groups) > 1}
    assert told <= features


def test_every_feature_has_an_example() -> None:
    assert set(EXAMPLES) == set(FEATURES) - NOT_COMPILED


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_found_by_name_and_no_other_is(name: str) -> None:
    model = compiled(name)
    with pytest.raises(ConfigError, match=rf"^robot\.xml: {EXAMPLES[name][2]}.* cannot be expressed for engine none$"):
        check_features(model, "robot.xml", "none", frozenset(FEATURES) - {name})


@pytest.mark.parametrize("engine", engine_names())
@pytest.mark.parametrize("name", sorted(set(EXAMPLES) - COMPUTING))
def test_an_engine_refuses_what_it_does_not_honour(name: str, engine: str) -> None:
    cls = engine_class(engine)
    if name in cls.HONOURS:
        check_features(compiled(name), "robot.xml", engine, cls.HONOURS | set(FEATURES) - {name})
        return
    with pytest.raises(ConfigError, match=f"{EXAMPLES[name][2]}.* cannot be expressed for engine {engine}"):
        check_features(compiled(name), "robot.xml", engine, cls.HONOURS | set(FEATURES) - {name})


@pytest.mark.parametrize("engine", engine_names())
def test_an_engine_names_features_that_exist(engine: str) -> None:
    assert set(FEATURES) >= engine_class(engine).HONOURS


def test_what_does_nothing_is_not_refused() -> None:
    """Inactive equalities, tendons that are merely measured, and flags of what a model does not have."""
    model = mujoco.MjModel.from_xml_string(
        """<mujoco><option><flag spring="disable" damper="disable" frictionloss="disable" limit="disable"
        clampctrl="disable" actuation="disable" equality="disable" gravity="disable"/></option>
        <worldbody><body><joint name="hinge"/><geom size=".1"/></body></worldbody>
        <equality><joint joint1="hinge" active="false"/></equality>
        <tendon><fixed><joint joint="hinge" coef="1"/></fixed></tendon></mujoco>"""
    )
    model.opt.gravity[:] = 0.0
    check_features(model, "robot.xml", "none", frozenset())


@pytest.mark.parametrize(
    ("option", "joint", "gear", "fields"),
    [
        ("", "", "inf", "actuator_gear"),
        ("", 'damping="nan"', "1", "dof_damping"),
        ('<option gravity="0 0 -inf"/>', "", "1", "option gravity"),
    ],
)
def test_numbers_that_are_not_finite_are_refused(
    option: str, joint: str, gear: str, fields: str, tmp_path: Path
) -> None:
    """MuJoCo compiles them, and every world of such a robot fails at its first step."""
    path = tmp_path / "robot.xml"
    path.write_text(
        f'''<mujoco>{option}<worldbody><body><joint name="j" {joint}/><geom size="0.1"/></body></worldbody>
        <actuator><motor joint="j" gear="{gear}" ctrlrange="-1 1"/></actuator></mujoco>'''
    )
    with pytest.raises(ConfigError, match=rf"robot\.xml: a number is not finite in .*{fields}"):
        RobotModel(path)
