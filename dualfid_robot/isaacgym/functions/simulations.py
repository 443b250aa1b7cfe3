"""Simulations, their time, and the ground."""

from __future__ import annotations

import copy
import time

import numpy as np
import torch

from dualfid_robot.errors import ConfigError
from dualfid_robot.isaacgym import ground
from dualfid_robot.isaacgym.functions.handles import Sim, check_unbuilt
from dualfid_robot.isaacgym.parameters import (
    HeightFieldParams,
    PlaneParams,
    SimParams,
    TriangleMeshParams,
)
from dualfid_robot.isaacgym.session import not_provided


class SimulationFunctions:
    """Functions about a simulation."""

    def create_sim(
        self, compute_device: int = 0, graphics_device: int = 0, type: int = 0, params: SimParams | None = None
    ) -> Sim:
        """A simulation on the engine that the launcher was given.

        Raises:
            ConfigError: tensors on a GPU are asked for on a machine without CUDA.
        """
        params = SimParams() if params is None else params
        if params.use_gpu_pipeline and not torch.cuda.is_available():
            raise ConfigError(
                "use_gpu_pipeline: this machine has no CUDA: run the script with its tensors on the CPU "
                "(--sim_device=cpu --rl_device=cpu, or sim_device=cpu rl_device=cpu pipeline=cpu)"
            )
        device = torch.device(f"cuda:{compute_device}" if params.use_gpu_pipeline else "cpu")
        return Sim(copy.deepcopy(params), device)

    def prepare_sim(self, sim: Sim) -> bool:
        return True

    def destroy_sim(self, sim: Sim) -> None:
        pass

    def simulate(self, sim: Sim) -> None:
        sim.step()

    def fetch_results(self, sim: Sim, wait: bool = True) -> None:
        pass

    def get_sim_params(self, sim: Sim) -> SimParams:
        return copy.deepcopy(sim.params)

    def set_sim_params(self, sim: Sim, params: SimParams) -> None:
        """Only gravity may change once the engine is built."""
        if sim.built and (params.dt, params.substeps) != (sim.params.dt, sim.params.substeps):
            raise not_provided("set_sim_params of another dt or substeps after the first step or refresh")
        sim.params = copy.deepcopy(params)
        sim.properties_changed()

    def get_sim_time(self, sim: Sim) -> float:
        return sim.steps * sim.params.dt

    def get_elapsed_time(self, sim: Sim) -> float:
        return time.monotonic() - sim.started

    def get_frame_count(self, sim: Sim) -> int:
        return sim.steps

    # The ground.

    def add_ground(self, sim: Sim, params: PlaneParams) -> None:
        _add(sim, ground.plane(params))

    def add_heightfield(self, sim: Sim, heightsamples: np.ndarray, params: HeightFieldParams) -> None:
        _add(sim, ground.height_field(heightsamples, params))

    def add_triangle_mesh(
        self, sim: Sim, vertices: np.ndarray, triangles: np.ndarray, params: TriangleMeshParams
    ) -> None:
        _add(sim, ground.mesh(vertices, triangles, params))


def _add(sim: Sim, added: ground.Ground) -> None:
    check_unbuilt(sim, "ground")
    if sim.grounds and sim.grounds[0].friction != added.friction:
        raise not_provided("ground of several frictions", f"the first has {sim.grounds[0].friction:g}")
    sim.grounds.append(added)
