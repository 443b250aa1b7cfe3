"""What of a compiled model can touch what, by MuJoCo's own filters."""

from __future__ import annotations

import mujoco
import numpy as np

_DISABLE = mujoco.mjtDisableBit


def touching_pairs(model: mujoco.MjModel) -> np.ndarray:
    """The pairs of geoms that MuJoCo lets touch, of which at least one moves: (pairs, 2), each ascending.

    Geoms touch if one's type is in the affinity of the other. They also touch if the file names the pair. Those of one
    link never do, nor those that the file excludes. Those of a link and its parent do only where the file says so.
    """
    if model.opt.disableflags & (_DISABLE.mjDSBL_CONTACT | _DISABLE.mjDSBL_CONSTRAINT):
        return np.zeros((0, 2), np.int64)
    types, masks = model.geom_contype, model.geom_conaffinity
    bodies, fixed = model.geom_bodyid, fixed_geoms(model)
    weld = model.body_weldid[bodies]
    touch = (types[:, None] & masks) | (masks[:, None] & types) != 0
    touch &= (weld[:, None] != weld) & ~(fixed[:, None] & fixed)
    touch &= ~ignored_links(model)[weld[:, None], weld]
    touch &= ~excluded_bodies(model)[bodies[:, None], bodies]
    named = np.sort(np.stack([model.pair_geom1, model.pair_geom2], 1), 1)
    apart = weld[named[:, 0]] != weld[named[:, 1]]
    touch[tuple(named[apart].T)] = True
    return np.argwhere(np.triu(touch))


def fixed_geoms(model: mujoco.MjModel) -> np.ndarray:
    """Which geoms never move, (geoms,) bool: the world's, and those of mocap bodies, which nothing here moves."""
    weld = model.body_weldid[model.geom_bodyid]
    return np.asarray((weld == 0) | (model.body_mocapid[weld] >= 0))


def ignored_links(model: mujoco.MjModel) -> np.ndarray:
    """Which links, named by their topmost bodies, never touch since one carries the other: (bodies, bodies) bool."""
    ignored = np.zeros((model.nbody, model.nbody), bool)
    if not model.opt.disableflags & _DISABLE.mjDSBL_FILTERPARENT:
        links = np.flatnonzero(model.body_weldid == np.arange(model.nbody))
        parents = model.body_weldid[model.body_parentid[links]]
        moving = parents != 0
        ignored[links[moving], parents[moving]] = True
    return ignored | ignored.T


def excluded_bodies(model: mujoco.MjModel) -> np.ndarray:
    """Of which bodies the file excludes contacts with one another: (bodies, bodies) bool."""
    excluded = np.zeros((model.nbody, model.nbody), bool)
    excluded[model.exclude_signature >> 16, model.exclude_signature & 0xFFFF] = True
    return excluded | excluded.T


def touching_bodies(model: mujoco.MjModel) -> tuple[str, ...]:
    """Names of the moving bodies of which a geom can touch something, in MuJoCo's order."""
    geoms = np.unique(touching_pairs(model))
    bodies = np.unique(model.geom_bodyid[geoms[~fixed_geoms(model)[geoms]]])
    return tuple(str(model.body(body).name) for body in bodies.tolist())
