"""How many contacts and constraint rows a world of a model needs: MuJoCo Warp's buffers have fixed sizes."""

from __future__ import annotations

import mujoco
import numpy as np

_GEOM = mujoco.mjtGeom

# Contacts that MuJoCo Warp can find between two geoms, by their types in MuJoCo's order.
_CONTACTS = {
    (_GEOM.mjGEOM_PLANE, _GEOM.mjGEOM_SPHERE): 1,
    (_GEOM.mjGEOM_PLANE, _GEOM.mjGEOM_CAPSULE): 2,
    (_GEOM.mjGEOM_PLANE, _GEOM.mjGEOM_ELLIPSOID): 1,
    (_GEOM.mjGEOM_PLANE, _GEOM.mjGEOM_CYLINDER): 4,
    (_GEOM.mjGEOM_CAPSULE, _GEOM.mjGEOM_CAPSULE): 2,
    (_GEOM.mjGEOM_CAPSULE, _GEOM.mjGEOM_BOX): 2,
} | {(_GEOM.mjGEOM_SPHERE, other): 1 for other in (_GEOM.mjGEOM_SPHERE, _GEOM.mjGEOM_CAPSULE, _GEOM.mjGEOM_BOX)}
_MOST_CONTACTS = 8  # of every other pair

_EQUALITY_ROWS = {mujoco.mjtEq.mjEQ_CONNECT: 3, mujoco.mjtEq.mjEQ_WELD: 6}  # the others have one


def buffer_sizes(model: mujoco.MjModel, pairs: np.ndarray) -> tuple[int, int]:
    """Contacts per world (a mean: the worlds share that buffer) and constraint rows of each world to provide for.

    Each moving geom gets its contacts with the two static geoms that have the most. It also gets one contact with
    another moving geom. To these contacts come the rows of all equalities, dry frictions and limits.

    Args:
        model: the compiled model.
        pairs: (k, 2), the pairs of geoms that can collide.
    """
    static = model.body_weldid[model.geom_bodyid] == 0
    contacts = rows = 0
    for geom in np.flatnonzero(~static).tolist():
        others = (pairs[(pairs == geom).any(1)].sum(1) - geom).tolist()
        found = [(_most_contacts(model, geom, other), _rows_per_contact(model, geom, other)) for other in others]
        with_static = sorted(pair for pair, other in zip(found, others, strict=True) if static[other])[-2:]
        contacts += sum(count for count, _ in with_static)
        rows += sum(count * each for count, each in with_static)
        with_moving = [each for (_, each), other in zip(found, others, strict=True) if not static[other]]
        if with_moving:
            contacts += 1
            rows += max(with_moving)
    rows += sum(_EQUALITY_ROWS.get(mujoco.mjtEq(kind), 1) for kind in model.eq_type)
    rows += int((model.dof_frictionloss > 0).sum() + (model.tendon_frictionloss > 0).sum())
    rows += int(model.jnt_limited.sum() + model.tendon_limited.sum())
    return max(contacts, 1), max(rows, 1)  # without any row, MuJoCo Warp's implicit integrators leave velocities alone


def _most_contacts(model: mujoco.MjModel, geom: int, other: int) -> int:
    first, second = sorted((int(model.geom_type[geom]), int(model.geom_type[other])))
    return _CONTACTS.get((_GEOM(first), _GEOM(second)), _MOST_CONTACTS)


def _rows_per_contact(model: mujoco.MjModel, geom: int, other: int) -> int:
    condim = int(max(model.geom_condim[geom], model.geom_condim[other]))
    if condim == 1 or model.opt.cone == mujoco.mjtCone.mjCONE_ELLIPTIC:
        return condim
    return 2 * (condim - 1)
