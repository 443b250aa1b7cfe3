"""The one robot model that all environments share: the actors of the first, the ground, and what drives the joints.

Every environment is a world of its own, whose actors are the same assets in the same order. What may differ between
environments, besides states, is in `world_parameters.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import mujoco
import numpy as np

from dualfid_robot.isaacgym.actors import Actor, Environment
from dualfid_robot.isaacgym.ground import Ground, add_ground
from dualfid_robot.isaacgym.parameters import UNLIMITED, AttractorProperties, DofDriveMode
from dualfid_robot.isaacgym.session import CURRENT, not_provided, say_once
from dualfid_robot.isaacgym.transforms import Vec3
from dualfid_robot.isaacgym.world_parameters import WorldProperties
from dualfid_robot.robots.model import RobotModel

Kind = tuple[int, int]  # collision group and filter of a shape; -1 is in all groups
_GROUND = (-1, 0)
_EFFORT, _POS, _VEL = DofDriveMode.DOF_MODE_EFFORT, DofDriveMode.DOF_MODE_POS, DofDriveMode.DOF_MODE_VEL


@dataclass(frozen=True)
class SceneModel(RobotModel):
    """A robot model whose description is a spec in memory instead of a file."""

    scene: mujoco.MjSpec | None = field(default=None, repr=False, compare=False)

    def _read(self) -> mujoco.MjSpec:
        assert self.scene is not None
        return self.scene.copy()


def build_scene(
    environments: list[Environment],
    grounds: list[Ground],
    gravity: Vec3,
    properties: WorldProperties,
    physics_dt: float,
) -> SceneModel:
    """The robot model of one environment.

    Args:
        environments: all of them; the first one's actors are built.
        grounds: what stands still.
        gravity: m/s².
        properties: of one environment, as it is built.
        physics_dt: s.
    """
    first = environments[0]
    spec = mujoco.MjSpec()
    spec.compiler.degree, spec.compiler.balanceinertia = False, True
    spec.option.gravity = list(gravity)
    bits = _contact_bits(first)
    add_ground(spec, grounds, *bits[_GROUND])

    # Each actor's bodies, with its shapes' friction and filter, and what drives its joints.
    kinds = _kinds(first)
    if len(first.actors) > 1:
        say_once("where two actors touch, the greater friction counts: PhysX takes the mean")
    shape = dof = 0
    for slot, actor in enumerate(first.actors):
        root = _attach(spec, slot, actor)
        for geom in [geom for body in _subtree(root) for geom in body.geoms]:
            contype, conaffinity = bits[kinds[shape]]
            geom.contype, geom.conaffinity = contype, conaffinity
            geom.friction = [properties.friction[0, shape], 0.005, 0.0001]
            shape += 1
        for joint in [joint for body in _subtree(root) for joint in body.joints if joint.name != _free_name(slot)]:
            own = actor.dof_properties[dof - _dofs_before(first, slot)]
            _drive(spec, joint, own, properties, dof, actor.asset.spec.compiler.degree)
            dof += 1
    for number, attractor in enumerate(first.attractors):
        _attract(spec, number, first, attractor)
    spec.assets = {file: content for actor in first.actors for file, content in actor.asset.spec.assets.items()}
    _free_stiff_drives(spec, properties, physics_dt)
    names = [name for actor in first.actors for name in actor.asset.body_names]
    feet = [f"{slot}/{name}" for slot, actor in enumerate(first.actors) for name in actor.asset.body_names]
    parts = [part.lower() for part in CURRENT.feet]
    feet = [long for long, name in zip(feet, names, strict=True) if any(part in name.lower() for part in parts)]
    return SceneModel(Path("isaacgym"), tuple(feet), scene=spec)


def _attach(spec: mujoco.MjSpec, slot: int, actor: Actor) -> mujoco.MjsBody:
    """Put an actor's bodies into the world, its root at the actor's pose."""
    asset = actor.asset.spec.copy()
    root = spec.worldbody.add_frame().attach_body(asset.worldbody.first_body(), f"{slot}/", "")
    root.pos, root.quat = list(actor.pose.p), [actor.pose.r.w, actor.pose.r.x, actor.pose.r.y, actor.pose.r.z]
    if actor.asset.floating:
        root.add_freejoint(name=_free_name(slot))
    else:
        # MuJoCo would let a link touch the fixed one that it hangs on: it takes that for part of the world.
        for number, child in enumerate(root.bodies):
            spec.add_exclude(name=f"{slot}/exclude_{number}", bodyname1=root.name, bodyname2=child.name)
    return root


def _drive(
    spec: mujoco.MjSpec, joint: mujoco.MjsJoint, dofs: np.ndarray, world: WorldProperties, dof: int, degrees: bool
) -> None:
    """A joint's limits, passive properties and actuator. An attached joint's limits keep the unit of its own file."""
    mode, gain, rate = world.modes[dof], world.gains[0, dof], world.rates[0, dof]
    joint.limited = mujoco.mjtLimited.mjLIMITED_TRUE if dofs["hasLimits"] else mujoco.mjtLimited.mjLIMITED_FALSE
    if dofs["hasLimits"]:
        limits = sorted((dofs["lower"], dofs["upper"]))
        joint.range = np.degrees(limits) if degrees and joint.type == mujoco.mjtJoint.mjJNT_HINGE else limits
    joint.frictionloss, joint.armature = dofs["friction"], dofs["armature"]
    if mode == _EFFORT and joint.armature < CURRENT.armature_floor:
        joint.armature = CURRENT.armature_floor
        say_once(
            f"armature of joints under explicit efforts is at least {CURRENT.armature_floor}: PhysX stays stable "
            "without, MuJoCo does not (--armature-floor)"
        )
    bias = [0.0, -gain, -rate] if mode in (_POS, _VEL) else [0.0, 0.0, 0.0]
    actuator = spec.add_actuator(
        name=joint.name,
        target=joint.name,
        trntype=mujoco.mjtTrn.mjTRN_JOINT,
        gaintype=mujoco.mjtGain.mjGAIN_FIXED,
        biastype=mujoco.mjtBias.mjBIAS_AFFINE,
        biasprm=[*bias, *[0.0] * (len(spec.default.actuator.biasprm) - 3)],
    )
    gains = {_POS: gain, _VEL: rate}
    actuator.gainprm = [gains.get(mode, 1.0), *[0.0] * (len(actuator.gainprm) - 1)]
    if mode in gains:
        if 0 < dofs["effort"] < UNLIMITED:
            actuator.forcelimited = mujoco.mjtLimited.mjLIMITED_TRUE
            actuator.forcerange = [-dofs["effort"], dofs["effort"]]
    else:
        joint.stiffness, joint.damping = [gain, 0.0, 0.0], [rate, 0.0, 0.0]


def _free_stiff_drives(spec: mujoco.MjSpec, world: WorldProperties, physics_dt: float) -> None:
    """Take the effort limits from drives that are too stiff for them.

    PhysX limits the force that an implicit drive ends a step with. MuJoCo limits the force that a drive begins a step
    with, and then integrates it explicitly. A drive that is faster than a step would bang between its limits.
    """
    model, freed = spec.compile(), []
    for dof, actuator in enumerate(spec.actuators):
        inertia = model.dof_M0[model.joint(actuator.target).dofadr[0]]
        if actuator.forcelimited == mujoco.mjtLimited.mjLIMITED_TRUE and world.rates[0, dof] * physics_dt > inertia:
            actuator.forcelimited = mujoco.mjtLimited.mjLIMITED_FALSE
            freed.append(actuator.target)
    if freed:
        say_once(f"effort limits of drives that are faster than a physics step do not hold: {', '.join(freed)}")


def _attract(spec: mujoco.MjSpec, number: int, environment: Environment, properties: AttractorProperties) -> None:
    """Hold a point of a body at a point of the world, rigidly."""
    if properties.axes != 7:
        raise not_provided("create_rigid_body_attractor of other axes than AXIS_TRANSLATION")
    say_once("attractors hold rigidly, whatever their stiffness")
    names = [f"{slot}/{name}" for slot, actor in enumerate(environment.actors) for name in actor.asset.body_names]
    target, offset = f"attractor_{number}/target", f"attractor_{number}/offset"
    spec.worldbody.add_site(name=target, pos=list(properties.target.p))
    spec.body(names[properties.rigid_handle]).add_site(name=offset, pos=list(properties.offset.p))
    spec.add_equality(type=mujoco.mjtEq.mjEQ_CONNECT, objtype=mujoco.mjtObj.mjOBJ_SITE, name1=offset, name2=target)


def _contact_bits(environment: Environment) -> dict[Kind, tuple[int, int]]:
    """`contype` and `conaffinity` of each kind of shape."""
    kinds = sorted({_GROUND, *_kinds(environment)})
    if len(kinds) > 31:
        raise not_provided(f"{len(kinds)} different collision groups and filters", "allowed are 31")
    return {
        kind: (1 << number, sum(1 << place for place, other in enumerate(kinds) if _touch(kind, other)))
        for number, kind in enumerate(kinds)
    }


def _touch(one: Kind, other: Kind) -> bool:
    """Whether shapes of two kinds touch: in one group or in all, and their filters share no bit."""
    return (one[0] == other[0] or -1 in (one[0], other[0])) and not one[1] & other[1]


def _kinds(environment: Environment) -> list[Kind]:
    """Of each shape of an environment."""
    groups = zip(environment.groups, environment.actors, strict=True)
    return [(group, int(bits)) for group, actor in groups for bits in actor.filters]


def _dofs_before(environment: Environment, slot: int) -> int:
    return sum(len(actor.asset.dof_names) for actor in environment.actors[:slot])


def _free_name(slot: int) -> str:
    return f"{slot}/free_root"


def _subtree(root: mujoco.MjsBody) -> list[mujoco.MjsBody]:
    """A body and all below it, depth first."""
    return [root, *(body for child in root.bodies for body in _subtree(child))]
