"""Warp kernels of our own: what comes after a physics step, and after the last one of a control period."""

# mypy: ignore-errors
# This is Warp's language in Python's clothes. It reads the annotations: no `from __future__ import annotations` here.

import warp as wp


@wp.kernel(enable_backward=False)
def measure_contacts(
    sensordata: wp.array2d[float],
    first: int,
    qpos: wp.array2d[float],
    floating_base: bool,
    contact_wrench: wp.array3d[float],
):
    """Net contact wrench on each measured body from its 9 numbers in `sensordata` (see `RobotModel.compile`).

    MuJoCo reports the force that the body exerts, and its torque about the contact point.
    """
    world, body = wp.tid()
    adr = first + 9 * body
    force = wp.vec3(sensordata[world, adr], sensordata[world, adr + 1], sensordata[world, adr + 2])
    torque = wp.vec3(sensordata[world, adr + 3], sensordata[world, adr + 4], sensordata[world, adr + 5])
    arm = wp.vec3(sensordata[world, adr + 6], sensordata[world, adr + 7], sensordata[world, adr + 8])
    if floating_base:
        arm -= wp.vec3(qpos[world, 0], qpos[world, 1], qpos[world, 2])
    torque += wp.cross(arm, force)
    for i in range(3):
        contact_wrench[world, body, i] = -force[i]
        contact_wrench[world, body, 3 + i] = -torque[i]


@wp.kernel(enable_backward=False)
def count_overflows(
    kinds: wp.array[int],
    nacon: wp.array[int],
    ncollision: wp.array[int],
    nefc: wp.array[int],
    overflow: wp.array[int],
    counts: wp.array[int],
    largest: wp.array[int],
):
    """Count the worlds in which a buffer overflowed during the step, by kind, and clear their flags.

    `largest` keeps the most entries seen in the contact buffer, per stepping world. It also keeps the most constraint
    rows seen in one world.
    """
    world = wp.tid()
    flags = overflow[world]
    if flags != 0:
        for kind in range(kinds.shape[0]):
            if (flags & kinds[kind]) != 0:
                wp.atomic_add(counts, kind, 1)
        overflow[world] = 0
    if world == 0:
        worlds = nefc.shape[0]
        wp.atomic_max(largest, 0, (wp.max(nacon[0], ncollision[0]) + worlds - 1) / worlds)
    if nefc[world] > largest[1]:
        wp.atomic_max(largest, 1, nefc[world])


@wp.func
def _within(values: wp.array[float], bound: float) -> bool:
    for i in range(values.shape[0]):  # noqa: SIM110 (Warp has no `all`)
        if not (wp.abs(values[i]) < bound):  # nor is a NaN
            return False
    return True


@wp.kernel(enable_backward=False)
def reset_failed(
    bound: float,
    initial_qpos: wp.array[float],
    initial_history: wp.array[float],
    time: wp.array[float],
    qpos: wp.array2d[float],
    qvel: wp.array2d[float],
    act: wp.array2d[float],
    ctrl: wp.array2d[float],
    history: wp.array2d[float],
    qacc_warmstart: wp.array2d[float],
    jacobian: wp.array3d[float],
    constraint_mass: wp.array2d[float],
    contact_wrench: wp.array3d[float],
    failed: wp.array[bool],
):
    """Find the worlds that have left the bounds or the finite numbers, and put them back to the initial state."""
    world = wp.tid()
    sound = _within(qpos[world], bound) and _within(qvel[world], bound)
    failed[world] = not sound
    if sound:
        return
    time[world] = 0.0
    for i in range(qpos.shape[1]):
        qpos[world, i] = initial_qpos[i]
    for i in range(qvel.shape[1]):
        qvel[world, i] = 0.0
        qacc_warmstart[world, i] = 0.0
    for i in range(act.shape[1]):
        act[world, i] = 0.0
    for i in range(ctrl.shape[1]):
        ctrl[world, i] = 0.0
    for i in range(history.shape[1]):
        history[world, i] = initial_history[i]
    for i in range(contact_wrench.shape[1]):
        for j in range(6):
            contact_wrench[world, i, j] = 0.0
    # The solver reads rows beyond the active ones and multiplies them by 0, which does not take a NaN away.
    for i in range(constraint_mass.shape[1]):
        constraint_mass[world, i] = 0.0
    for i in range(jacobian.shape[1]):
        for j in range(jacobian.shape[2]):
            jacobian[world, i, j] = 0.0
