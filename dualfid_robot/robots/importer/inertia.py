"""Masses and inertias of links: what a URDF gives, what is possible, and what stands in for the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from dualfid_robot.robots.importer.decisions import Decisions
from dualfid_robot.robots.importer.options import ImportOptions
from dualfid_robot.robots.importer.urdf import Inertial, Link, Pose, Urdf

OfGeometry = Callable[[Link], Inertial | None]
"""Mass properties of a link's collision geometry at a density of 1 kg/m^3; None where it has no volume."""

_ROUNDING = 0.01  # of the largest moment, by which rounded numbers may miss the triangle inequality
_LEAST = 1e-15  # mjMINVAL of MuJoCo, which refuses smaller masses and moments
_BALL = 0.05  # m, radius of the ball that stands in where there is no geometry
_LEAST_MASS = 1e-3  # kg, of a moving link without mass and geometry


def settle_inertias(
    urdf: Urdf, base_moves: bool, of_geometry: OfGeometry, options: ImportOptions, decisions: Decisions
) -> dict[str, Inertial]:
    """The inertial of each link that has a mass.

    A link without a mass is none of its own where it is fixed to one with a mass. Parts that move together and have no
    mass get that of their collision geometry at `options.density`. Without geometry they are a ball of 1 g and 5 cm.
    """
    inertials = {}
    for link in urdf.links.values():
        given = link.inertial
        if given is not None and given.mass > _LEAST:
            inertials[link.name] = _possible(link, given, of_geometry, decisions)
    for links in _moving_together(urdf, base_moves):
        if any(link.name in inertials for link in links):
            continue
        for link in links:
            geometry = of_geometry(link)
            if geometry is not None:
                mass, inertia = options.density * geometry.mass, options.density * geometry.inertia
                inertials[link.name] = replace(geometry, mass=mass, inertia=inertia)
                decisions.add(
                    f"no mass: that of its collision geometry at {options.density:g} kg/m³", f"link {link.name}"
                )
        if not any(link.name in inertials for link in links):
            decisions.add("no mass and no geometry, but it moves: a ball of 1 g and 5 cm", f"link {links[0].name}")
            inertials[links[0].name] = _ball(_LEAST_MASS, Pose())
    for link in urdf.links.values():
        if link.name not in inertials and (link.collisions or link.inertial is not None):
            decisions.add("no mass of its own", f"link {link.name}")
    return inertials


def _possible(link: Link, given: Inertial, of_geometry: OfGeometry, decisions: Decisions) -> Inertial:
    """An inertial as given, where a body can have it. Else one of the same mass and centre of mass."""
    moments, axes = np.linalg.eigh(given.inertia)
    excess = moments[2] - moments[0] - moments[1]
    if moments[0] > _LEAST and excess <= _ROUNDING * moments[2]:
        if excess > -1e-9 * moments[2]:
            # MuJoCo compares without a tolerance: keep clear of the bound
            moments[2] = (moments[0] + moments[1]) * (1.0 - 1e-9)
            given = replace(given, inertia=axes @ np.diag(moments) @ axes.T)
        if excess > 1e-9 * moments[2]:
            decisions.add("the largest moment of inertia is lowered to the sum of the others", f"link {link.name}")
        return given
    text = " ".join(f"{moment:.3g}" for moment in moments)
    geometry = of_geometry(link)
    if geometry is None:
        decisions.add(f"no body has the moments of inertia {text}: those of a ball of 5 cm", f"link {link.name}")
        return _ball(given.mass, given.pose)
    decisions.add(f"no body has the moments of inertia {text}: those of its collision geometry", f"link {link.name}")
    inertia = geometry.inertia * given.mass / geometry.mass
    return Inertial(given.mass, replace(given.pose, rotation=geometry.pose.rotation), inertia)


def _ball(mass: float, pose: Pose) -> Inertial:
    return Inertial(mass, pose, 0.4 * mass * _BALL**2 * np.eye(3))


def _moving_together(urdf: Urdf, base_moves: bool) -> list[list[Link]]:
    """Links that fixed joints join, without those that stand still."""
    groups: dict[str, list[Link]] = {}
    top: dict[str, str] = {}
    for name, link in urdf.links.items():
        joint = urdf.joints.get(name)
        top[name] = top[joint.parent] if joint is not None and joint.kind == "fixed" else name
        groups.setdefault(top[name], []).append(link)
    return [links for name, links in groups.items() if name != urdf.root or base_moves]


def combine(parts: Sequence[tuple[Inertial, Pose]]) -> Inertial:
    """One inertial of several, given with the poses of their links in the link that takes them: Steiner's theorem."""
    mass = sum(part.mass for part, _ in parts)
    poses = [link @ part.pose for part, link in parts]
    centre = sum((part.mass * pose.position for (part, _), pose in zip(parts, poses, strict=True)), np.zeros(3)) / mass
    inertia = np.zeros((3, 3))
    for (part, _), pose in zip(parts, poses, strict=True):
        axes, arm = pose.rotation.as_matrix(), pose.position - centre
        inertia += axes @ part.inertia @ axes.T + part.mass * (arm @ arm * np.eye(3) - np.outer(arm, arm))
    return Inertial(mass, Pose(centre), inertia)


def collapse_fixed(
    urdf: Urdf, inertials: dict[str, Inertial], decisions: Decisions
) -> tuple[Urdf, dict[str, Inertial]]:
    """The robot without the fixed joints that may go: what is below one becomes part of the link above."""
    links, joints = dict(urdf.links), dict(urdf.joints)
    parts = {name: [(inertials[name], Pose())] if name in inertials else [] for name in links}
    for name in reversed(list(links)):
        joint = joints.get(name)
        if joint is None or joint.kind != "fixed" or joint.keep:
            continue
        below, above = links.pop(name), links[joint.parent]
        del joints[name]
        links[joint.parent] = replace(
            above,
            visuals=above.visuals + tuple(replace(shape, pose=joint.pose @ shape.pose) for shape in below.visuals),
            collisions=above.collisions
            + tuple(replace(shape, pose=joint.pose @ shape.pose) for shape in below.collisions),
        )
        parts[joint.parent] += [(inertial, joint.pose @ pose) for inertial, pose in parts.pop(name)]
        for other in [other for other in joints.values() if other.parent == name]:
            joints[other.child] = replace(other, parent=joint.parent, pose=joint.pose @ other.pose)
        decisions.add(f"part of {joint.parent}: its joint is fixed", f"link {name}")
    combined = {name: combine(found) if len(found) > 1 else found[0][0] for name, found in parts.items() if found}
    return replace(urdf, links=links, joints=joints), combined


def principal(inertia: np.ndarray) -> tuple[np.ndarray, Rotation]:
    """Moments (3,) and the rotation whose columns are their axes."""
    moments, axes = np.linalg.eigh(inertia)
    axes[:, 2] *= np.sign(np.linalg.det(axes))
    return moments, Rotation.from_matrix(axes)


def mass_at_root(urdf: Urdf) -> float:
    """Mass of the root link and of what fixed joints hold to it, kg."""
    held = {urdf.root}
    for name, joint in ((name, urdf.joints[name]) for name in urdf.links if name in urdf.joints):
        if joint.kind == "fixed" and joint.parent in held:
            held.add(name)
    return sum(link.inertial.mass for name in held if (link := urdf.links[name]).inertial is not None)
