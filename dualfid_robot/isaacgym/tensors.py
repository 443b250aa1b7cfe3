"""A simulation's tensors, as a task reads and writes them.

They belong to the task: they change on a refresh alone. What the task wrote into them counts when it is passed to a
setter. Rows are environment by environment. Quaternions are (x, y, z, w); velocities are those of a body's frame, in
the world's frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dualfid_robot.errors import ConfigError
from dualfid_robot.isaacgym.api.torch_utils import quat_rotate, quat_rotate_inverse
from dualfid_robot.isaacgym.session import not_provided
from dualfid_robot.isaacgym.simulation import Simulation
from dualfid_robot.isaacgym.transforms import Transform

_XYZW, _WXYZ = [1, 2, 3, 0], [3, 0, 1, 2]
_SAME_PLACE = 1e-4  # m, and of a quaternion's cosine


class Tensors:
    """The tensors of one simulation, each allocated when it is first acquired, and zero until it is
    first refreshed.

    All environments together have A actors, D DOFs, B bodies and S force sensors:

    - root (A, 13): position, quaternion, linear and angular velocity.
    - dof (D, 2): position and velocity.
    - body (B, 13): as for root.
    - contact (B, 3): net contact force, N.
    - dof_force (D,): force of the drives, N m or N.
    - sensor (S, 6): contacts' force and torque in the sensor's frame.
    """

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self._tensors: dict[str, Tensor] = {}
        self._readers: dict[str, Callable[[], Tensor]] = {
            "root": self._read_root,
            "dof": self._read_dof,
            "body": self._read_bodies,
            "contact": self._read_contacts,
            "dof_force": self._read_dof_forces,
            "sensor": self._read_sensors,
        }

    def acquire(self, name: str) -> Tensor:
        """The tensor of a name."""
        if name in ("contact", "sensor"):
            self.simulation.measure_contacts()
        if name not in self._tensors:
            self._tensors[name] = self._allocate(name)
        return self._tensors[name]

    def refresh(self, name: str) -> bool:
        """Copy the present state into a tensor that was acquired."""
        if name in self._tensors:
            values = self._readers[name]()
            self._tensors[name].view(values.shape).copy_(values)
        return True

    def _allocate(self, name: str) -> Tensor:
        assets = self.simulation.assets
        dofs = sum(len(asset.dof_names) for asset in assets)
        bodies = sum(len(asset.body_names) for asset in assets)
        sensors = sum(len(asset.sensors) for asset in assets)
        rows, columns = {
            "root": (len(assets), 13),
            "dof": (dofs, 2),
            "body": (bodies, 13),
            "contact": (bodies, 3),
            "dof_force": (dofs, 0),
            "sensor": (sensors, 6),
        }[name]
        count = rows * self.simulation.num_envs
        return torch.zeros((count, columns) if columns else (count,), device=self.simulation.device)

    # What the engine says, environments first.

    def _read_root(self) -> Tensor:
        simulator, layout = self.simulation.simulator, self.simulation.layout
        roots = torch.zeros(self.simulation.num_envs, layout.actors, 13)
        for slot, root in enumerate(layout.roots):
            if root is None:
                pose = self.simulation.environments[0].actors[slot].pose
                roots[:, slot, :7] = torch.tensor([*pose.p, *pose.r])
                continue
            qpos = simulator.qpos[:, root[0] : root[0] + 7]
            qvel = simulator.qvel[:, root[1] : root[1] + 6]
            roots[:, slot, :3], roots[:, slot, 3:7] = qpos[:, :3], qpos[:, 3:][:, _XYZW]
            roots[:, slot, 7:10] = qvel[:, :3]
            roots[:, slot, 10:] = quat_rotate(roots[:, slot, 3:7], qvel[:, 3:])
        return roots

    def _read_dof(self) -> Tensor:
        simulator, layout = self.simulation.simulator, self.simulation.layout
        return torch.stack([simulator.qpos[:, layout.dof_qpos], simulator.qvel[:, layout.dof_qvel]], -1)

    def _read_bodies(self) -> Tensor:
        states = self.simulation.body_states()
        return torch.cat([states[..., :3], states[..., 3:7][..., _XYZW], states[..., 7:]], -1)

    def _read_contacts(self) -> Tensor:
        return self.simulation.contact_wrenches()[..., :3]

    def _read_dof_forces(self) -> Tensor:
        return self.simulation.simulator.actuator_forces()

    def _read_sensors(self) -> Tensor:
        """Contacts' wrench on each sensor's body, about the sensor's origin and in its frame."""
        simulation = self.simulation
        states = self._read_bodies()
        wrenches = simulation.contact_wrenches()
        about = simulation.simulator.qpos[:, :3] if simulation.simulator.robot.floating_base else torch.zeros(1, 3)
        found = []
        for asset, bodies in zip(simulation.assets, simulation.layout.body_slots, strict=True):
            for body, pose in asset.sensors:
                state, wrench = states[:, bodies.start + body], wrenches[:, bodies.start + body]
                offset = torch.tensor([list(pose.p)]).expand(len(state), 3)
                origin = state[:, :3] + quat_rotate(state[:, 3:7], offset)
                torque = wrench[:, 3:] - torch.linalg.cross(origin - about, wrench[:, :3])
                found.append(torch.cat([_local(state, pose, wrench[:, :3]), _local(state, pose, torque)], 1))
        return torch.stack(found, 1)

    # What the task sets.

    def set_roots(self, values: Tensor, actors: Tensor | None = None) -> bool:
        """Put the roots of some actors, or of all, into states of (A, 13).

        Args:
            actors: (k,) integers, places in the whole simulation.
        """
        simulation, layout = self.simulation, self.simulation.layout
        actors = self._actors(actors)
        values = shaped("root states", values, simulation.num_envs * layout.actors, 13).to("cpu", torch.float32)
        slots = actors % layout.actors
        worlds = torch.unique(actors // layout.actors)
        qpos, qvel = simulation.simulator.qpos[worlds], simulation.simulator.qvel[worlds]
        for slot, root in enumerate(layout.roots):
            chosen = actors[slots == slot]
            if not len(chosen):
                continue
            if root is None:
                self._check_fixed(slot, values[chosen])
                continue
            state, rows = values[chosen], torch.searchsorted(worlds, chosen // layout.actors)
            quaternion = state[:, 3:7] / state[:, 3:7].norm(dim=1, keepdim=True)
            pose = torch.cat([state[:, :3], quaternion[:, _WXYZ]], 1)
            qpos[rows, root[0] : root[0] + 7] = pose
            angular = quat_rotate_inverse(quaternion, state[:, 10:])
            qvel[rows, root[1] : root[1] + 6] = torch.cat([state[:, 7:10], angular], 1)
        simulation.simulator.set_state(worlds, qpos, qvel)
        return True

    def set_dofs(self, values: Tensor, actors: Tensor | None = None) -> bool:
        """Put the joints of some actors, or of all, into states of (D, 2)."""
        simulation, layout = self.simulation, self.simulation.layout
        actors = self._actors(actors)
        values = shaped("DOF states", values, simulation.num_envs, layout.dofs, 2).to("cpu", torch.float32)
        worlds = torch.unique(actors // layout.actors)
        qpos, qvel = simulation.simulator.qpos[worlds], simulation.simulator.qvel[worlds]
        position, velocity = qpos[:, layout.dof_qpos], qvel[:, layout.dof_qvel]
        for slot, columns in enumerate(layout.dof_slots):
            chosen = actors[actors % layout.actors == slot] // layout.actors
            rows = torch.searchsorted(worlds, chosen)
            position[rows, columns], velocity[rows, columns] = values[chosen, columns].unbind(-1)
        qpos[:, layout.dof_qpos], qvel[:, layout.dof_qvel] = position, velocity
        simulation.simulator.set_state(worlds, qpos, qvel)
        return True

    def set_targets(self, name: str, values: Tensor, actors: Tensor | None = None) -> bool:
        """Copy values of all DOFs into the simulation's targets (N, D) of a name, for some actors or for all."""
        layout = self.simulation.layout
        target: Tensor = getattr(self.simulation, name)
        values = shaped("values of DOFs", values, *target.shape)
        if actors is None:
            n = self.simulation.num_active
            target[:n].copy_(values[:n])
            return True
        places = self._actors(actors)
        for slot, columns in enumerate(layout.dof_slots):
            worlds = places[places % layout.actors == slot] // layout.actors
            target[worlds, columns] = values[worlds.to(values.device), columns].to(target.device)
        return True

    def _check_fixed(self, slot: int, states: Tensor) -> None:
        """Raise NotProvided if an actor whose root is fixed is to be somewhere else."""
        actor = self.simulation.environments[0].actors[slot]
        places, turns = torch.tensor(list(actor.pose.p)), torch.tensor(list(actor.pose.r))
        moved = (states[:, :3] - places).abs().amax(1) > _SAME_PLACE
        turned = 1 - (states[:, 3:7] @ turns).abs() > _SAME_PLACE
        if (moved | turned).any():
            raise not_provided(f"another place for actor {actor.name}", "its root is fixed")

    def _actors(self, actors: Tensor | None) -> Tensor:
        """Places of actors in the simulation as int64, without those of frozen environments; all of them for None.

        Raises:
            IndexError: a place that there is not.
            ConfigError: no whole numbers.
        """
        per_environment = self.simulation.layout.actors
        count = self.simulation.num_envs * per_environment
        moving = self.simulation.num_active * per_environment
        if actors is None:
            return torch.arange(moving)
        if actors.dtype not in (torch.int32, torch.int64):
            raise ConfigError(f"isaacgym: actor indices of {actors.dtype}: allowed is torch.int32")
        places = actors.reshape(-1).to("cpu", torch.int64)
        if len(places) and not (int(places.min()) >= 0 and int(places.max()) < count):
            raise IndexError(f"actor indices {int(places.min())} to {int(places.max())}: there are {count} actors")
        return places if moving == count else places[places < moving]


def first(actors: Tensor, count: int) -> Tensor:
    """The first so many indices.

    Raises:
        ConfigError: there are fewer.
    """
    if not 0 <= count <= actors.numel():
        raise ConfigError(f"isaacgym: {count} actor indices are to be used; {actors.numel()} are given")
    return actors.reshape(-1)[:count]


def shaped(what: str, values: Tensor, *shape: int) -> Tensor:
    """Values in this shape.

    Raises:
        ConfigError: they are more or fewer.
    """
    if values.numel() != math.prod(shape):
        raise ConfigError(f"isaacgym: {what} of shape {tuple(values.shape)}: expected are {shape}")
    return values.view(shape)


def _local(state: Tensor, pose: Transform, vectors: Tensor) -> Tensor:
    """Vectors of the world's frame in that of a sensor on a body."""
    rotation = torch.tensor([list(pose.r)]).expand(len(state), 4)
    return quat_rotate_inverse(rotation, quat_rotate_inverse(state[:, 3:7], vectors))


def push(simulation: Simulation, forces: Tensor | None, torques: Tensor | None, local: bool) -> bool:
    """Push all bodies in the next step: forces (B, 3) at their centres of mass and torques (B, 3)."""
    if not simulation.num_active:
        return True
    shape = (simulation.num_envs, simulation.layout.bodies, 3)
    parts = [
        torch.zeros(shape) if part is None else shaped("forces", part, *shape).to("cpu", torch.float32)
        for part in (forces, torques)
    ]
    if local:
        quaternions = simulation.body_states()[..., 3:7][..., _XYZW]
        parts = [quat_rotate(quaternions.reshape(-1, 4), part.reshape(-1, 3)).view(shape) for part in parts]
    simulation.wrenches = torch.cat(parts, -1)
    return True
