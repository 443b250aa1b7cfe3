"""What a task looks like, as tables: joints, observation, actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mujoco
import numpy as np
from rich.table import Table

from dualfid_robot.envs.task import Task, Term

_JOINTS = {
    mujoco.mjtJoint.mjJNT_FREE: ("free", 7, 6, ""),
    mujoco.mjtJoint.mjJNT_BALL: ("ball", 4, 3, "rad"),
    mujoco.mjtJoint.mjJNT_SLIDE: ("slide", 1, 1, "m"),
    mujoco.mjtJoint.mjJNT_HINGE: ("hinge", 1, 1, "rad"),
}
"""Name, coordinates, velocities and the unit of the range of each type of joint."""

_TARGETS = {
    mujoco.mjtTrn.mjTRN_JOINT: mujoco.mjtObj.mjOBJ_JOINT,
    mujoco.mjtTrn.mjTRN_JOINTINPARENT: mujoco.mjtObj.mjOBJ_JOINT,
    mujoco.mjtTrn.mjTRN_TENDON: mujoco.mjtObj.mjOBJ_TENDON,
    mujoco.mjtTrn.mjTRN_SITE: mujoco.mjtObj.mjOBJ_SITE,
    mujoco.mjtTrn.mjTRN_BODY: mujoco.mjtObj.mjOBJ_BODY,
}


def joint_table(model: mujoco.MjModel) -> Table:
    """The joints in the order of their coordinates, with their columns in qpos and qvel and their ranges."""
    table = _table("Joints", "joint", "type", "body", "qpos", "qvel", "range")
    for i in range(model.njnt):
        joint = model.joint(i)
        kind, coordinates, velocities, unit = _JOINTS[mujoco.mjtJoint(model.jnt_type[i])]
        limits = _range(model.jnt_range[i], bool(model.jnt_limited[i]), unit)
        table.add_row(
            joint.name,
            kind,
            model.body(model.jnt_bodyid[i]).name,
            columns(model.jnt_qposadr[i], coordinates),
            columns(model.jnt_dofadr[i], velocities),
            limits,
        )
    return table


def observation_table(task: Task) -> Table:
    """The terms in the order of their columns; those for the critic alone stand below a line."""
    table = _table("Observation", "columns", "term", "size", "history", "scale", "unit", "frame", "seen by")
    start = 0
    for terms, reader in ((task.terms, "actor, critic"), (task.privileged_terms, "critic")):
        for term in terms:
            table.add_row(
                columns(start, term.columns),
                term.name,
                str(term.size),
                str(term.history) if term.history > 1 else "",
                f"{term.scale:g}",
                term.unit,
                term.frame,
                reader,
            )
            start += term.columns
        table.add_section()
    return table


def action_line(task: Task) -> str:
    """How an action becomes a control."""
    mapping = task.action_mapping
    change = f"{_numbers(mapping.scale)} · clip(action, ±{mapping.clip:g})"
    if mapping.cumulative:
        return f"{mapping.kind} = limit(previous {mapping.kind} + {change})"
    offset = "" if mapping.offset == 0.0 else f" + {_numbers(mapping.offset)}"
    return f"{mapping.kind} = {change}{offset}"


def actuator_table(model: mujoco.MjModel) -> Table:
    """The actuators in the order of the action's columns.

    kp and kd are in the actuator's units per unit of length or velocity at gear 1.
    """
    table = _table("Actuators", "action", "actuator", "drives", "kind", "gear", "kp", "kd", "control", "force")
    for i in range(model.nu):
        kind, kp, kd = _gains(model, i)
        gear = model.actuator_gear[i]
        table.add_row(
            str(i),
            model.actuator(i).name,
            _target(model, i),
            kind,
            _numbers(tuple(gear) if gear[1:].any() else float(gear[0])),
            kp,
            kd,
            _range(model.actuator_ctrlrange[i], bool(model.actuator_ctrllimited[i])),
            _range(model.actuator_forcerange[i], bool(model.actuator_forcelimited[i])),
        )
    return table


def reward_table(sides: Mapping[str, Mapping[str, np.ndarray]]) -> Table:
    """What each term of the reward brings to an episode.

    Args:
        sides: by simulator, (episodes,) of each term, as in `Evaluation.reward_terms`.
    """
    table = _table("Reward of an episode by terms (share of all that is given or taken)", "term")
    for side in sides:
        table.add_column(side, justify="right")
    means = [{term: float(values.mean()) for term, values in terms.items()} for terms in sides.values()]
    for term in dict.fromkeys(term for terms in means for term in terms):
        cells = []
        for terms in means:
            value, size = terms.get(term, 0.0), sum(map(abs, terms.values()))
            cells.append(f"{value:.4g} ({abs(value) / size if size else 0.0:4.0%})")
        table.add_row(term, *cells)
    table.add_section()
    table.add_row("return", *(f"{sum(terms.values()):.4g}       " for terms in means))
    return table


def columns(start: int, count: int) -> str:
    """ "3" or "3-5"."""
    return str(start) if count == 1 else f"{start}-{start + count - 1}"


def column_names(terms: Sequence[Term]) -> list[str]:
    """A name for each column of an observation, such as "joint_velocity[3]"."""
    return [term.name if term.columns == 1 else f"{term.name}[{k}]" for term in terms for k in range(term.columns)]


def _table(title: str, *headers: str) -> Table:
    table = Table(title=title, title_justify="left")
    for header in headers:
        table.add_column(header)
    return table


def _gains(model: mujoco.MjModel, i: int) -> tuple[str, str, str]:
    """Kind, kp and kd of an actuator.

    A position servo has force = kp · (control − length) − kd · velocity. A velocity servo has force = kd · (control −
    velocity).
    """
    gain, bias = model.actuator_gainprm[i], model.actuator_biasprm[i]
    fixed = model.actuator_gaintype[i] == mujoco.mjtGain.mjGAIN_FIXED
    if not fixed or model.actuator_dyntype[i] != mujoco.mjtDyn.mjDYN_NONE:
        return _enum_name(mujoco.mjtGain(model.actuator_gaintype[i])), "", ""
    if model.actuator_biastype[i] == mujoco.mjtBias.mjBIAS_NONE:
        return "motor" if gain[0] == 1.0 else f"motor, gain {gain[0]:g}", "", ""
    if model.actuator_biastype[i] == mujoco.mjtBias.mjBIAS_AFFINE and bias[0] == 0.0:
        if bias[1] == -gain[0]:
            return "position", f"{gain[0]:g}", f"{-bias[2]:g}"
        if bias[1] == 0.0 and bias[2] == -gain[0]:
            return "velocity", "", f"{gain[0]:g}"
    return "general", "", ""


def _enum_name(member: object) -> str:
    return str(getattr(member, "name", member)).removeprefix("mjGAIN_").lower()


def _target(model: mujoco.MjModel, i: int) -> str:
    kind = _TARGETS.get(mujoco.mjtTrn(model.actuator_trntype[i]))
    if kind is None:
        return ""
    name = mujoco.mj_id2name(model, kind, model.actuator_trnid[i, 0])
    return name if kind == mujoco.mjtObj.mjOBJ_JOINT else f"{kind.name.removeprefix('mjOBJ_').lower()} {name}"


def _range(limits: np.ndarray, limited: bool, unit: str = "") -> str:
    return f"{limits[0]:.4g} to {limits[1]:.4g} {unit}".rstrip() if limited else "free"


def _numbers(value: float | Sequence[float]) -> str:
    if isinstance(value, Sequence):
        distinct = set(value)
        return f"{value[0]:g}" if len(distinct) == 1 else "(" + ", ".join(f"{item:g}" for item in value) + ")"
    return f"{value:g}"
