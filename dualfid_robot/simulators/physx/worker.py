"""The process that steps a share of the PhysX engine's worlds.

It imports neither torch nor MuJoCo. Requests arrive on standard input: the pickled `Spec`, then four bytes a step: the
number n of active worlds. It answers each with one byte. Everything else is in shared memory. It ends when its standard
input is closed, so it cannot outlive its parent.

Every world is a PhysX scene of its own. Nothing of a world reaches another: no contact, no rounding, no failure. An
idle one costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from dualfid_robot.simulators.physx.protocol import Spec
from dualfid_robot.simulators.physx.scene import JointChanges, World, combine
from dualfid_robot.simulators.workers.loop import of_joints, rotation_matrices, serve
from dualfid_robot.simulators.workers.process import CLEAN, RAW


class _Touch(NamedTuple):
    """What is known of a world in which measured links touch something, after its last physics step.

    Attributes:
        place: the world's among the worker's.
        points: as `World.contacts`.
        before, after: as `World.velocities`, before and after the step.
        joint_forces: (links, 6) force and torque that each link gets from its joint, in PhysX's order, joint frame.
        turns: as `World.turns`, of the links below the joints between the measured links and the rest.
    """

    place: int
    points: list[tuple[int, bool, float, np.ndarray, np.ndarray]]
    before: list[np.ndarray]
    after: list[np.ndarray]
    joint_forces: np.ndarray
    turns: list[np.ndarray]


class _Worker:
    """The worlds of one worker, and its side of the shared arrays."""

    def __init__(self, spec: Spec, arrays: dict[str, np.ndarray]) -> None:
        self.spec, self.arrays = spec, arrays
        self.rows = np.arange(spec.worker, len(arrays["qpos"]), spec.workers)
        links = spec.articulation.links
        bodies = arrays["mass"].shape[1]
        self.nominal = [combine(link.parts, np.ones(bodies), np.zeros((bodies, 3))) for link in links]
        self.worlds = [self._make(row) for row in self.rows.tolist()]
        example = self.worlds[0]
        self.order = example.order
        self.to_physx = np.argsort(self.order)
        # The joints between the measured links and the rest, with the sign of what they transmit to the measured one.
        self.borders = [
            (place, number, 1.0 if link.parent == measured else -1.0)
            for place, measured in enumerate(spec.contact_links)
            for number, link in enumerate(links)
            if link.joint is not None and measured in (number, link.parent)
        ]
        self.below = sorted({number for _, number, _ in self.borders})
        self.indices = [link.index for link in example.links]  # PhysX's numbers of the links

    def _make(self, row: int) -> World:
        """The world of a row of the shared arrays, with its parameters."""
        arrays, factors, offsets = self.arrays, self.arrays["mass"][row], self.arrays["com"][row]
        masses = self.nominal
        if (factors != 1.0).any() or offsets.any():
            masses = [combine(link.parts, factors, offsets) for link in self.spec.articulation.links]
        arrays["changed"][row] = False
        damping, stiffness, limits = (
            of_joints(arrays[name][[row]], len(self.spec.joint_zero))[0]
            for name in ("dof_damping", "joint_stiffness", "joint_range")
        )
        joints = JointChanges(float(arrays["damping"][row]) * damping, stiffness, limits)
        return World(self.spec, masses, float(arrays["friction"][row]), joints, arrays["gravity"][row])

    def step(self, n: int) -> None:
        """Advance this worker's share of the first n worlds by one control period."""
        spec, arrays = self.spec, self.arrays
        active = int(np.searchsorted(self.rows, n))
        rows = self.rows[:active]
        ctrl = arrays["ctrl"][rows].astype(np.float64)
        failed = np.logical_not(np.isfinite(ctrl).all(1))
        self._take_states(rows, failed)
        ctrl[failed] = 0.0
        raw = arrays["raw"][rows]
        touches = self._advance(rows, ctrl, raw)
        spoiled = ~(np.abs(raw).max(1) < spec.bound)
        arrays["raw"][rows] = raw
        arrays["failed"][rows] = failed | spoiled
        arrays["changed"][rows[spoiled]] = True  # there may be more in such a scene that is not finite
        with np.errstate(all="ignore"):
            arrays["qpos"][rows], arrays["qvel"][rows] = self._generalized(raw, self._centres(range(active)))
        arrays["contact_wrench"][rows] = 0.0
        if touches:
            self._give_contacts(rows, touches)

    def _advance(self, rows: np.ndarray, ctrl: np.ndarray, raw: np.ndarray) -> list[_Touch]:
        """Step worlds, update their raw states and measure their contacts.

        Where forces do not change between physics steps, it goes world by world. A scene's second step, in the
        processor's cache then, takes a third of the first one's time.
        """
        drives, arrays = self.spec.drives, self.arrays
        factors = (arrays[name][rows] for name in ("motor_strength", "servo_stiffness", "servo_damping"))
        gains, none = drives.gains(*factors), np.zeros((len(rows), 1))  # PhysX has the dampers and springs
        past, load = arrays["past"][rows], arrays["load"][rows]
        position, velocity = self._joints(raw)
        if not drives.in_motion:
            torque, _ = drives.forces(ctrl, position, velocity, gains, none, none)
            return self._take_steps(torque, raw, drives.steps, last=True)
        with np.errstate(invalid="ignore", over="ignore"):  # of a robot that is not finite; `step` sees it
            for step in range(drives.steps):
                now = drives.delayed(ctrl, past, step)
                torque, falls = drives.forces(now, position, velocity, gains, none, none)
                torque = drives.implicit(torque, falls, velocity, load)
                touches = self._take_steps(torque, raw, 1, last=step == drives.steps - 1)
                before, (position, velocity) = velocity, self._joints(raw)
                load = drives.load(torque, before, velocity)
        arrays["load"][rows] = load
        arrays["past"][rows] = np.concatenate([ctrl[:, None], past], 1)[:, : past.shape[1]]
        return touches

    def _take_steps(self, torque: np.ndarray, raw: np.ndarray, steps: int, last: bool) -> list[_Touch]:
        """Step each world so often under constant torques (k, joints), and update its raw state.

        After the control period's last step, measure contacts.
        """
        measures, touches = last and bool(self.spec.contact_links), []
        torque = torque[:, self.to_physx].astype(np.float32)
        for index in range(len(raw)):
            world = self.worlds[index]
            world.robot.set_qf(torque[index])
            for step in range(steps):
                if measures and step == steps - 1:
                    before = world.velocities()
                world.system.step()
            world.read(raw[index])
            if measures and (points := world.contacts()):
                forces = world.robot.link_incoming_joint_forces
                touches.append(_Touch(index, points, before, world.velocities(), forces, world.turns(self.below)))
        return touches

    def _joints(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions and velocities (k, joints) of the joints of raw states, in MuJoCo's order."""
        joints, wide = len(self.order), raw.astype(np.float64)
        return wide[:, 13 + self.order] + self.spec.joint_zero, wide[:, 13 + joints + self.order]

    def _centres(self, indices: Iterable[int]) -> np.ndarray:
        """Centres of mass (k, 3) of worlds' root links, in the links' frames."""
        return np.array([self.worlds[index].masses[0].centre for index in indices]).reshape(-1, 3)

    def _take_states(self, rows: np.ndarray, failed: np.ndarray) -> None:
        """Put robots into the states that the parent has written. A state that PhysX must not see is failed."""
        arrays, spec = self.arrays, self.spec
        dirty = np.flatnonzero(arrays["dirty"][rows])
        if not len(dirty):
            return
        for index in dirty[arrays["changed"][rows[dirty]]].tolist():
            self.worlds[index] = self._make(int(rows[index]))
        given = rows[dirty]
        largest = np.maximum(np.abs(arrays["qpos"][given]).max(1), np.abs(arrays["qvel"][given]).max(1))
        bad = ~(largest < spec.bound)
        failed[dirty[bad]] = True
        arrays["qpos"][given[bad]], arrays["qvel"][given[bad]] = spec.initial
        stated = (arrays["dirty"][given] != RAW) | bad
        chosen = given[stated]
        centres = self._centres(dirty[stated].tolist())
        arrays["raw"][chosen] = self._raw(arrays["qpos"][chosen], arrays["qvel"][chosen], centres)
        for index, row in zip(dirty.tolist(), given.tolist(), strict=True):
            self.worlds[index].put(arrays["raw"][row])
        arrays["dirty"][given] = CLEAN

    def _give_contacts(self, rows: np.ndarray, touches: list[_Touch]) -> None:
        """Net contact force of each measured body, and its torque about the root body's origin.

        SAPIEN reports a contact point's impulse along its normal only. The rest of the ground's force on a link is its
        friction. It is taken to act at the points' centre of pressure. If several bodies of a link touch the ground,
        they share it in proportion to that pressure. Friction between links remains unknown.
        """
        spec, arrays = self.spec, self.arrays
        points: list[tuple[Any, ...]] = [
            (owner, *point) for owner, touch in enumerate(touches) for point in touch.points
        ]
        scalars = zip(*(point[:4] for point in points), strict=True)
        owner, column, grounded, sign = (np.array(values) for values in scalars)
        impulses, positions = (_rows((point[place] for point in points), 3) for place in (4, 5))
        touched = rows[[touch.place for touch in touches]]
        origin = np.zeros((len(touched), 3))
        if spec.articulation.floating:
            origin = arrays["qpos"][touched, :3]
        push = impulses * sign[:, None] * (spec.substeps / spec.control_dt)
        arm = positions - origin[owner]
        pressure = (np.linalg.norm(push, axis=1) * grounded)[:, None]

        def gather(values: np.ndarray) -> np.ndarray:
            """Sums (touched, columns, ·) of the points' values."""
            sums = np.zeros((len(touched), len(spec.contact_table), values.shape[1]))
            np.add.at(sums, (owner, column), values)
            return sums

        def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
            return part / np.where(whole > 0.0, whole, 1.0)

        load = gather(pressure)
        # (links, columns): which column is of which link; and by column, its link
        members = np.array([[link == number for link, _ in spec.contact_table] for number in spec.contact_links], float)
        links = members.argmax(0)
        across = self._ground_forces(touched, touches) - members @ gather(push * grounded[:, None])
        friction = across[:, links] * share(load, (members @ load)[:, links])
        centre = share(gather(pressure * arm), load)
        force, torque = gather(push) + friction, gather(np.cross(arm, push)) + np.cross(centre, friction)
        arrays["contact_wrench"][touched] = np.concatenate([force, torque], 2)[:, : arrays["contact_wrench"].shape[1]]

    def _ground_forces(self, touched: np.ndarray, touches: list[_Touch]) -> np.ndarray:
        """Forces (touched, contact_links, 3) of the ground on the measured links.

        By Newton's second law: mass times acceleration, less the weight and the forces of the joints, which PhysX
        reports. It counts the contacts between links of a robot among the latter.
        """
        spec = self.spec
        masses = [self.worlds[touch.place].masses for touch in touches]
        mass = np.array([[[each[number].mass] for number in spec.contact_links] for each in masses])
        before = _rows((each for touch in touches for each in touch.before), 3)
        after = _rows((each for touch in touches for each in touch.after), 3)
        change = (after - before).reshape(len(touches), -1, 3)
        force = mass * (change * (spec.substeps / spec.control_dt) - self.arrays["gravity"][touched][:, None])
        transmitted = _rows((touch.joint_forces for touch in touches), 6).reshape(len(touches), -1, 6)
        for place, number, sign in self.borders:
            joint = spec.articulation.links[number].joint
            assert joint is not None
            turns = _rows((touch.turns[self.below.index(number)] for touch in touches), 4)
            frame = rotation_matrices(turns) @ rotation_matrices(joint.in_child.quaternion[None])
            force[:, place] += sign * np.einsum("nij,nj->ni", frame, transmitted[:, self.indices[number], :3])
        return force

    def _raw(self, qpos: np.ndarray, qvel: np.ndarray, centres: np.ndarray) -> np.ndarray:
        """Raw states (see `World.read`) of generalized coordinates; centres of mass (k, 3) of the root links."""
        spec, joints = self.spec, len(self.spec.joint_zero)
        raw = np.zeros((len(qpos), 13 + 2 * joints), np.float32)
        raw[:, 13 + self.order] = qpos[:, qpos.shape[1] - joints :] - spec.joint_zero
        raw[:, 13 + joints + self.order] = qvel[:, qvel.shape[1] - joints :]
        raw[:, 3] = 1.0
        if spec.articulation.floating:
            rotation = rotation_matrices(qpos[:, 3:7])
            spin = np.einsum("nij,nj->ni", rotation, qvel[:, 3:6])
            raw[:, :7], raw[:, 10:13] = qpos[:, :7], spin
            raw[:, 7:10] = qvel[:, :3] + np.cross(spin, np.einsum("nij,nj->ni", rotation, centres))
        return raw

    def _generalized(self, raw: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The inverse of `_raw`."""
        spec, joints, raw = self.spec, len(self.order), raw.astype(np.float64)
        position, velocity = raw[:, 13 + self.order] + spec.joint_zero, raw[:, 13 + joints + self.order]
        if not spec.articulation.floating:
            return position, velocity
        rotation, spin = rotation_matrices(raw[:, 3:7]), raw[:, 10:13]
        linear = raw[:, 7:10] - np.cross(spin, np.einsum("nij,nj->ni", rotation, centres))
        angular = np.einsum("nij,ni->nj", rotation, spin)
        return np.concatenate([raw[:, :7], position], 1), np.concatenate([linear, angular, velocity], 1)


def _rows(arrays: Iterable[np.ndarray], width: int) -> np.ndarray:
    """Arrays of rows one below the other, in float64: faster than `np.array` of small ones."""
    return np.concatenate(list(arrays), axis=None).reshape(-1, width).astype(np.float64)


def main(memory: int, answer: int) -> None:
    """Serve until standard input is closed. See `workers.loop.serve`."""
    serve(_Worker, memory, answer)
