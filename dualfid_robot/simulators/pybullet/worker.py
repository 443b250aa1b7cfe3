"""The process that steps a share of the PyBullet engine's worlds.

It imports neither torch nor MuJoCo. Requests arrive on standard input: the pickled `Spec`, then four bytes a
step: the number n of active worlds. It answers each with one byte. Everything else is in shared memory. It ends when
its standard input is closed, so it cannot outlive its parent.

Worlds are grouped into Bullet clients of `robots_per_client` in world order. Client k belongs to worker k % workers. So
for every n, the first n worlds are spread over the workers. Robots of one client stand apart, as far as the planes
allow, and are filtered so that they touch nothing but the ground.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import numpy as np

from dualfid_robot.simulators.pybullet.bullet import CONTACT, Bullet
from dualfid_robot.simulators.pybullet.protocol import Spec
from dualfid_robot.simulators.workers.joint_drives import Gains
from dualfid_robot.simulators.workers.loop import of_joints, rotation_matrices, serve
from dualfid_robot.simulators.workers.process import CLEAN, RAW

_GROUND, _ROBOT = 1, 2
_SPACING = 4.0  # m, between the robots of a client
_PARALLEL = 1e-6  # length of what is left of an axis that lies among others
_RETURN = 0.3  # part of its excess over a limit by which a joint goes back in a control period
_PLANE = """<robot name="ground"><link name="ground">
<inertial><mass value="0"/><inertia ixx="0" iyy="0" izz="0" ixy="0" ixz="0" iyz="0"/></inertial>
<collision><geometry><plane normal="{} {} {}"/></geometry></collision>
</link></robot>"""


class _Client:
    """One Bullet world with the robots of the worlds [first, first + count)."""

    def __init__(self, spec: Spec, first: int, count: int) -> None:
        self.spec, self.first, self.count = spec, first, count
        self.in_motion = spec.drives.in_motion
        calls = spec.substeps if self.in_motion else 1  # in a control period
        self.bullet = Bullet(spec.gravity, spec.control_dt / calls, spec.substeps // calls, spec.solver_iterations)
        self.offsets = _places(count, np.array([normal for normal, _ in spec.planes]).reshape(-1, 3))
        self.grounds = [self._add_plane(normal, offset) for normal, offset in spec.planes]
        self.robots = [self._add_robot(index) for index in range(count)]
        self.moved: set[int] = set()  # robots that were given joint limits of their own

    def _load(self, urdf: str, position: list[float], fixed: bool) -> int:
        with tempfile.NamedTemporaryFile("w", suffix=".urdf") as file:
            file.write(urdf)
            file.flush()
            return self.bullet.load(file.name, position, fixed)

    def _add_plane(self, normal: tuple[float, float, float], offset: float) -> int:
        plane = self._load(_PLANE.format(*normal), [offset * x for x in normal], fixed=True)
        self.bullet.filter_contacts(plane, -1, _GROUND, _ROBOT)
        self.bullet.set_friction(plane, -1, 1.0)
        return plane

    def _add_robot(self, index: int) -> int:
        spec, bullet = self.spec, self.bullet
        robot = self._load(spec.urdf, self.offsets[index].tolist(), not spec.floating)
        links, joints = bullet.names(robot)
        self.links = links
        self.order = [joints[name] for name in spec.joint_names]  # where Bullet has the joints
        self.columns = np.full(len(links), -1)  # of the contact wrench, by link, the base last
        for column, name in enumerate(spec.contact_links):
            self.columns[links[name]] = column
        bullet.set_body(robot, largest_velocity=spec.bound)
        for name, moments in spec.inertia.items():
            bullet.set_inertia(robot, links[name], moments)
        for joint, damping in zip(self.order, spec.drives.damping.tolist(), strict=True):
            bullet.set_joint(robot, joint, 0.0 if self.in_motion else damping)
        for link in links.values():
            bullet.filter_contacts(robot, link, _ROBOT, _GROUND)
        for name, friction in zip(spec.foot_links, spec.friction, strict=True):
            bullet.set_friction(robot, links[name], friction)
            bullet.set_contact(robot, links[name], spec.contact_stiffness, spec.contact_damping)
        return robot

    def rebuild(self, index: int) -> None:
        """Replace a robot whose state has spoiled Bullet's data."""
        self.bullet.remove(self.robots[index])
        self.robots[index] = self._add_robot(index)

    def set_parameters(
        self, index: int, friction: float, mass: list[float], damping: np.ndarray, limits: np.ndarray
    ) -> None:
        """Give a robot parameters of its own.

        Args:
            friction: factor on its feet's.
            mass: factors on its links'.
            damping: (joints,) factors.
            limits: (joints, 2) MuJoCo's positions of the limits.
        """
        spec, bullet, robot = self.spec, self.bullet, self.robots[index]
        for name, nominal in zip(spec.foot_links, spec.friction, strict=True):
            bullet.set_friction(robot, self.links[name], nominal * friction)
        if not self.in_motion:
            for joint, each in zip(self.order, (spec.drives.damping * damping).tolist(), strict=True):
                bullet.set_joint(robot, joint, each)
        if index in self.moved or (limits != spec.joint_limits).any():
            self.moved.add(index)
            for number in np.flatnonzero(np.isfinite(limits).all(1)).tolist():
                bullet.set_limits(robot, self.order[number], *(limits[number] - spec.joint_zero[number]).tolist())
        for (name, nominal), factor in zip(spec.mass.items(), mass, strict=True):
            bullet.set_mass(robot, self.links[name], nominal * factor)
            pairs = zip(spec.inertia[name], spec.rotor_inertia[name], strict=True)
            # Written so that a factor of 1 gives the nominal moments to the bit.
            moments = [whole + (factor - 1) * (whole - rotor) for whole, rotor in pairs]
            bullet.set_inertia(robot, self.links[name], moments)

    def put(self, index: int, raw: np.ndarray) -> None:
        """Put a robot into a raw state."""
        q_size = 7 + len(self.order)
        self.bullet.put(self.robots[index], raw[:q_size].tolist(), raw[q_size:].tolist())

    def step(self, torque: np.ndarray, raw: np.ndarray) -> None:
        """Advance the client by a physics step, or by all of a control period where the drives allow it.

        Args:
            torque: (k, joints) of the first k robots' joints, in Bullet's order.
            raw: (k, raw size) takes these robots' states.
        """
        bullet, joints = self.bullet, len(self.order)
        robots = self.robots[: len(torque)]
        for robot, address in zip(robots, _rows(torque), strict=True):
            bullet.drive(robot, address, joints)
        bullet.step()
        for robot, address in zip(robots, _rows(raw), strict=True):
            bullet.read(robot, address, 8 * (7 + joints), 8 * (6 + joints))


class _Worker:
    """The clients of one worker, and its side of the shared arrays."""

    def __init__(self, spec: Spec, arrays: dict[str, np.ndarray]) -> None:
        self.spec, self.arrays = spec, arrays
        size = spec.robots_per_client
        firsts = range(spec.worker * size, spec.num_worlds, spec.workers * size)
        self.clients = [_Client(spec, first, min(size, spec.num_worlds - first)) for first in firsts]
        self.rows = np.concatenate([np.arange(c.first, c.first + c.count) for c in self.clients])
        self.offsets = np.concatenate([c.offsets for c in self.clients])
        order = np.array(self.clients[0].order, np.int64)
        self.q_columns, self.u_columns = 7 + order, 13 + len(order) + order  # of the joints in a raw state
        self.bullet_order = np.argsort(order)
        self.indices = self._indices()

    def _indices(self) -> np.ndarray:
        """Place in `rows` of each client's bodies, (clients, bodies)."""
        bodies = 1 + max(max(client.robots) for client in self.clients)
        indices = np.full((len(self.clients), bodies), -1)
        for number, client in enumerate(self.clients):
            indices[number, client.robots] = number * self.spec.robots_per_client + np.arange(client.count)
        return indices

    def step(self, n: int) -> None:
        """Advance this worker's share of the first n worlds by one control period."""
        spec, arrays = self.spec, self.arrays
        active = int(np.searchsorted(self.rows, n))
        rows = self.rows[:active]
        ctrl = arrays["ctrl"][rows]
        failed = ~np.isfinite(ctrl).all(1)
        self._take_parameters(rows)
        self._take_states(active, failed)
        ctrl[failed] = 0.0
        raw = self._in_motion(active, ctrl) if self.clients[0].in_motion else self._at_once(active, ctrl)
        self._give_states(active, raw, failed)
        for client, _, count in self._active_clients(active):
            idle = arrays["dirty"][client.first + count : client.first + client.count]
            idle[idle == CLEAN] = RAW
        if spec.contact_links:
            self._give_contacts(active)

    def _at_once(self, active: int, ctrl: np.ndarray) -> np.ndarray:
        """Take a control period's physics steps under constant forces. Returns raw states (active, ·)."""
        rows, drives = self.rows[:active], self.spec.drives
        position, velocity = self._joints(rows)
        none = np.zeros((active, 1))  # Bullet has the dampers; there are no springs
        torque, _ = drives.forces(ctrl, position, velocity, self._gains(rows), none, none)
        torque = self._keep_limits(position, velocity, torque, self._limits(rows), self.spec.control_dt)
        raw = np.empty((active, self.arrays["raw"].shape[1]))
        self._advance(torque, raw)
        return raw

    def _in_motion(self, active: int, ctrl: np.ndarray) -> np.ndarray:
        """Take a control period's physics steps, each with its own state's forces. Returns raw states (active, ·)."""
        rows, drives, arrays = self.rows[:active], self.spec.drives, self.arrays
        gains, limits, springs = self._gains(rows), self._limits(rows), self._of_joints("joint_stiffness", rows)
        damping = self._damping(rows)
        past, load = arrays["past"][rows], arrays["load"][rows]
        position, velocity = self._joints(rows)
        raw = np.empty((active, arrays["raw"].shape[1]))
        with np.errstate(invalid="ignore", over="ignore"):  # of a robot that Bullet has spoiled; `_give_states` sees it
            for step in range(drives.steps):
                now = drives.delayed(ctrl, past, step)
                torque, falls = drives.forces(now, position, velocity, gains, damping, springs)
                torque = drives.implicit(torque, falls, velocity, load)
                torque = self._keep_limits(position, velocity, torque, limits, drives.timestep)
                torque[~np.isfinite(torque)] = 0.0
                self._advance(torque, raw)
                before, velocity = velocity, raw[:, self.u_columns]
                position = raw[:, self.q_columns] + self.spec.joint_zero
                load = drives.load(torque, before, velocity)
        arrays["load"][rows] = load
        arrays["past"][rows] = np.concatenate([ctrl[:, None], past], 1)[:, : past.shape[1]]
        return raw

    def _advance(self, torque: np.ndarray, raw: np.ndarray) -> None:
        """Let all active clients take their next step.

        Args:
            torque: (active, joints), in MuJoCo's order.
            raw: (active, ·) takes the states.
        """
        torque = np.ascontiguousarray(torque[:, self.bullet_order])
        for client, start, count in self._active_clients(len(raw)):
            client.step(torque[start : start + count], raw[start : start + count])

    def _joints(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions and velocities (n, joints) of worlds, as the shared arrays have them."""
        qpos, qvel, joints = self.arrays["qpos"], self.arrays["qvel"], len(self.q_columns)
        return qpos[rows, qpos.shape[1] - joints :], qvel[rows, qvel.shape[1] - joints :]

    def _gains(self, rows: np.ndarray) -> Gains:
        names = ("motor_strength", "servo_stiffness", "servo_damping")
        return self.spec.drives.gains(*(self.arrays[name][rows] for name in names))

    def _of_joints(self, name: str, rows: np.ndarray) -> np.ndarray:
        """A parameter of worlds' joints, (n, joints, …)."""
        return of_joints(self.arrays[name][rows], len(self.q_columns))

    def _damping(self, rows: np.ndarray) -> np.ndarray:
        """Factors (n, joints) on worlds' dampers."""
        return self.arrays["damping"][rows, None] * self._of_joints("dof_damping", rows)

    def _limits(self, rows: np.ndarray) -> np.ndarray:
        """MuJoCo's positions (n, joints, 2) of worlds' joint limits."""
        return self.spec.joint_limits + self._of_joints("joint_range", rows)

    def _keep_limits(
        self, position: np.ndarray, velocity: np.ndarray, torque: np.ndarray, limits: np.ndarray, dt: float
    ) -> np.ndarray:
        """Torques (n, joints) that do not carry a joint over its limits within the time for which they act.

        Bullet's own limits act on a joint that is already over its limit, a step late. At full torque a light joint
        would swing a third of a radian across. So the torque is bounded. The joint, by its own inertia, just reaches
        the limit at the end of that time. A joint beyond it goes back by a part of its excess.
        """
        for limit, bound in ((limits[..., 1], np.minimum), (limits[..., 0], np.maximum)):
            gap = limit - position
            fastest = np.where(bound(gap, 0.0) == gap, _RETURN * gap, gap) / dt
            torque = bound(torque, (fastest - velocity) * self.spec.joint_inertia / dt)
        return torque

    def _active_clients(self, active: int) -> Iterator[tuple[_Client, int, int]]:
        start = 0
        for client in self.clients:
            if start >= active:
                return
            count = min(client.count, active - start)
            yield client, start, count
            start += count

    def _take_parameters(self, rows: np.ndarray) -> None:
        """Give robots the parameters that the parent has written."""
        arrays, size = self.arrays, self.spec.robots_per_client
        changed = np.flatnonzero(arrays["changed"][rows])
        worlds = rows[changed]
        friction, mass = arrays["friction"][worlds].tolist(), arrays["mass"][worlds].tolist()
        each = zip(changed.tolist(), friction, mass, self._damping(worlds), self._limits(worlds), strict=True)
        for index, *values in each:
            self.clients[index // size].set_parameters(index % size, *values)
        arrays["changed"][worlds] = False

    def _take_states(self, active: int, failed: np.ndarray) -> None:
        """Put robots into the states that the parent has written. A state that Bullet must not see is failed."""
        arrays, rows = self.arrays, self.rows[:active]
        dirty = np.flatnonzero(arrays["dirty"][rows])
        if not len(dirty):
            return
        worlds = rows[dirty]
        largest = np.maximum(np.abs(arrays["qpos"][worlds]).max(1), np.abs(arrays["qvel"][worlds]).max(1))
        bad = ~(largest < self.spec.bound)
        arrays["qpos"][worlds[bad]], arrays["qvel"][worlds[bad]] = self.spec.initial
        failed[dirty[bad]] = True
        raw = self._raw(arrays["qpos"][worlds], arrays["qvel"][worlds], self.offsets[dirty])
        exact = arrays["dirty"][worlds] == RAW
        raw[exact] = arrays["raw"][worlds[exact]]
        arrays["dirty"][worlds] = CLEAN
        size = self.spec.robots_per_client
        for index, state in zip(dirty.tolist(), raw, strict=True):
            self.clients[index // size].put(index % size, state)

    def _give_states(self, active: int, raw: np.ndarray, failed: np.ndarray) -> None:
        arrays, rows, size = self.arrays, self.rows[:active], self.spec.robots_per_client
        spoiled = ~(np.abs(raw).max(1) < self.spec.bound)
        for index in np.flatnonzero(spoiled).tolist():
            self.clients[index // size].rebuild(index % size)
            self.indices = self._indices()
            arrays["changed"][rows[index]] = True
        arrays["raw"][rows] = raw
        arrays["failed"][rows] = failed | spoiled
        arrays["qpos"][rows], arrays["qvel"][rows] = self._generalized(raw, self.offsets[:active])

    def _give_contacts(self, active: int) -> None:
        """Sum contact forces and their torques about the root body's origin."""
        rows = self.rows[:active]
        contacts: list[bytes] = []
        origins: list[int] = []  # the client of each array of contacts
        for number, (each, _, _) in enumerate(self._active_clients(active)):
            contacts += [each.bullet.contacts(ground) for ground in each.grounds]
            origins += [number] * len(each.grounds)
        table = np.frombuffer(b"".join(contacts), CONTACT)
        counts = np.array([len(part) // CONTACT.itemsize for part in contacts], np.int64)
        client = np.repeat(np.array(origins, np.int64), counts)
        index = self.indices[client, table["bodies"][:, 1]]
        column = self.clients[0].columns[table["links"][:, 1]]
        # Not those of idle robots of a partly active client, and of one that has just been replaced.
        measured = (index >= 0) & (index < len(rows)) & (column >= 0)
        table, index, column = table[measured], index[measured], column[measured]
        force = np.einsum("ni,nij->nj", table["slip"], table["across"])
        force -= table["push"][:, None] * table["normal"]
        force *= self.clients[0].bullet.substeps  # by whose time together Bullet has divided the impulse of one
        arm = table["position_b"] - self.offsets[index]
        if self.spec.floating:
            arm -= self.arrays["qpos"][rows[index], :3]
        wrench = self.arrays["contact_wrench"]
        wrench[rows] = 0.0
        np.add.at(wrench, (rows[index], column), np.concatenate([force, np.cross(arm, force)], 1))

    def _raw(self, qpos: np.ndarray, qvel: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Bullet's q and u (see `Bullet`) of generalized coordinates."""
        spec, joints = self.spec, len(self.spec.joint_names)
        raw = np.zeros((len(qpos), 13 + 2 * joints))
        raw[:, self.q_columns] = qpos[:, qpos.shape[1] - joints :] - spec.joint_zero
        raw[:, self.u_columns] = qvel[:, qvel.shape[1] - joints :]
        raw[:, :3], raw[:, 6] = offsets, 1.0
        if spec.floating:
            base = raw[:, 7 + joints :]
            rotation = rotation_matrices(qpos[:, 3:7])
            arm = rotation @ spec.root_offset
            raw[:, :3] += qpos[:, :3] + arm
            raw[:, 3:7] = np.roll(_product(qpos[:, 3:7], spec.root_rotation), -1, axis=1)
            base[:, 3:6] = np.einsum("nij,nj->ni", rotation, qvel[:, 3:6])
            base[:, :3] = qvel[:, :3] + np.cross(base[:, 3:6], arm)
        return raw

    def _generalized(self, raw: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The inverse of `_raw`."""
        spec, joints = self.spec, len(self.spec.joint_names)
        position, velocity = raw[:, self.q_columns] + spec.joint_zero, raw[:, self.u_columns]
        if not spec.floating:
            return position, velocity
        base = raw[:, 7 + joints :]
        quat = _product(np.roll(raw[:, 3:7], 1, axis=1), spec.root_rotation * (1.0, -1.0, -1.0, -1.0))
        rotation = rotation_matrices(quat)
        arm = rotation @ spec.root_offset
        linear = base[:, :3] - np.cross(base[:, 3:6], arm)
        angular = np.einsum("nij,ni->nj", rotation, base[:, 3:6])
        return (
            np.concatenate([raw[:, :3] - arm - offsets, quat, position], 1),
            np.concatenate([linear, angular, velocity], 1),
        )


def _places(count: int, normals: np.ndarray) -> np.ndarray:
    """Where the robots of a client stand, (count, 3), m: apart, and all alike to planes with these normals (k, 3).

    That is a grid along one plane, a row along the edge of two, and one place for all in a corner.
    """
    directions: list[np.ndarray] = []
    known = list(np.linalg.svd(normals)[2][: np.linalg.matrix_rank(normals)]) if len(normals) else []
    for axis in np.eye(3):
        rest = axis - sum((axis @ other * other for other in (*known, *directions)), np.zeros(3))
        if np.linalg.norm(rest) > _PARALLEL and len(directions) < 2:
            directions.append(rest / np.linalg.norm(rest))
    side = int(np.ceil(np.sqrt(count))) if len(directions) == 2 else 1
    steps = np.divmod(np.arange(count), side)
    return _SPACING * sum((np.outer(n, d) for n, d in zip(steps, directions, strict=False)), np.zeros((count, 3)))


def _rows(array: np.ndarray) -> list[int]:
    """Addresses of an array's rows."""
    start, stride = array.ctypes.data, array.strides[0]
    return [start + stride * row for row in range(len(array))]


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Hamilton product of quaternions (n, 4) and (4,), (w, x, y, z)."""
    w, x, y, z = b
    right = np.array([[w, x, y, z], [-x, w, -z, y], [-y, z, w, -x], [-z, -y, x, w]])
    return a @ right


def main(memory: int, answer: int) -> None:
    """Serve until standard input is closed. See `workers.loop.serve`."""
    serve(_Worker, memory, answer)
