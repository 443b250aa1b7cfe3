"""The tensors."""

from __future__ import annotations

from torch import Tensor

from dualfid_robot.isaacgym.functions.handles import Sim
from dualfid_robot.isaacgym.session import say_once
from dualfid_robot.isaacgym.tensors import first, push

_ENV_SPACE, _LOCAL_SPACE = 0, 2


class StateFunctions:
    """Functions that read and write states of all environments at once."""

    def acquire_actor_root_state_tensor(self, sim: Sim) -> Tensor:
        return sim.tensors.acquire("root")

    def acquire_dof_state_tensor(self, sim: Sim) -> Tensor:
        return sim.tensors.acquire("dof")

    def acquire_rigid_body_state_tensor(self, sim: Sim) -> Tensor:
        return sim.tensors.acquire("body")

    def acquire_net_contact_force_tensor(self, sim: Sim) -> Tensor:
        return sim.tensors.acquire("contact")

    def acquire_dof_force_tensor(self, sim: Sim) -> Tensor:
        say_once("DOF forces are those of the joints' drives and efforts")
        return sim.tensors.acquire("dof_force")

    def acquire_force_sensor_tensor(self, sim: Sim) -> Tensor:
        return sim.tensors.acquire("sensor")

    def refresh_actor_root_state_tensor(self, sim: Sim) -> bool:
        return sim.tensors.refresh("root")

    def refresh_dof_state_tensor(self, sim: Sim) -> bool:
        return sim.tensors.refresh("dof")

    def refresh_rigid_body_state_tensor(self, sim: Sim) -> bool:
        return sim.tensors.refresh("body")

    def refresh_net_contact_force_tensor(self, sim: Sim) -> bool:
        return sim.tensors.refresh("contact")

    def refresh_dof_force_tensor(self, sim: Sim) -> bool:
        return sim.tensors.refresh("dof_force")

    def refresh_force_sensor_tensor(self, sim: Sim) -> bool:
        return sim.tensors.refresh("sensor")

    def set_actor_root_state_tensor(self, sim: Sim, states: Tensor) -> bool:
        return sim.tensors.set_roots(states)

    def set_actor_root_state_tensor_indexed(self, sim: Sim, states: Tensor, actors: Tensor, count: int) -> bool:
        return sim.tensors.set_roots(states, first(actors, count))

    def set_dof_state_tensor(self, sim: Sim, states: Tensor) -> bool:
        return sim.tensors.set_dofs(states)

    def set_dof_state_tensor_indexed(self, sim: Sim, states: Tensor, actors: Tensor, count: int) -> bool:
        return sim.tensors.set_dofs(states, first(actors, count))

    def set_dof_actuation_force_tensor(self, sim: Sim, forces: Tensor) -> bool:
        return sim.tensors.set_targets("efforts", forces)

    def set_dof_actuation_force_tensor_indexed(self, sim: Sim, forces: Tensor, actors: Tensor, count: int) -> bool:
        return sim.tensors.set_targets("efforts", forces, first(actors, count))

    def set_dof_position_target_tensor(self, sim: Sim, targets: Tensor) -> bool:
        return sim.tensors.set_targets("position_targets", targets)

    def set_dof_position_target_tensor_indexed(self, sim: Sim, targets: Tensor, actors: Tensor, count: int) -> bool:
        return sim.tensors.set_targets("position_targets", targets, first(actors, count))

    def set_dof_velocity_target_tensor(self, sim: Sim, targets: Tensor) -> bool:
        return sim.tensors.set_targets("velocity_targets", targets)

    def set_dof_velocity_target_tensor_indexed(self, sim: Sim, targets: Tensor, actors: Tensor, count: int) -> bool:
        return sim.tensors.set_targets("velocity_targets", targets, first(actors, count))

    def apply_rigid_body_force_tensors(
        self, sim: Sim, forces: Tensor | None = None, torques: Tensor | None = None, space: int = _ENV_SPACE
    ) -> bool:
        """Push bodies at their centres of mass in the next step; their axes are those at its beginning."""
        return push(sim, forces, torques, space == _LOCAL_SPACE)
