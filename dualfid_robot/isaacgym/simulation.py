"""A simulation: environments, and the engine under them all."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dualfid_robot.config.engines import simulator_settings
from dualfid_robot.errors import ConfigError
from dualfid_robot.isaacgym.actors import Environment
from dualfid_robot.isaacgym.assets import Asset
from dualfid_robot.isaacgym.body_kinematics import BodyKinematics
from dualfid_robot.isaacgym.feet import foot_settings
from dualfid_robot.isaacgym.ground import Ground
from dualfid_robot.isaacgym.layout import Layout
from dualfid_robot.isaacgym.parameters import DofDriveMode, SimParams
from dualfid_robot.isaacgym.scene import build_scene
from dualfid_robot.isaacgym.session import CURRENT, Session, not_provided, say_once, using
from dualfid_robot.isaacgym.world_parameters import WorldProperties, set_parameters
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.base import Simulator
from dualfid_robot.simulators.registry import engine_class, engine_config, make_simulator

_NO_COUNTERPART = (
    "restitution, velocity limits and clamps, and what SimParams says to PhysX and Flex, such as solver, iterations, "
    "contact_offset and max_depenetration_velocity"
)
_READINGS = {"actuator_forces": "DOF forces", "apply_wrenches": "forces on bodies"}
_ALIKE = ("actors", "collision groups or filters", "attractors")  # of `Environment.all_alike`


def engine_settings(session: Session, robot: RobotModel | None = None) -> dict[str, Any]:
    """Settings of the chosen engine: the session's own, else those of its file, with a robot's values for it.

    Raises:
        ConfigError: there is no such engine.
    """
    if session.settings is not None:
        return dict(session.settings)
    task = {} if robot is None else {"simulators": foot_settings(robot)}
    settings = simulator_settings(session.engine, task, "engine")
    if "threads" in settings:
        settings["threads"] = session.threads
    return settings


def announce(what: str, session: Session) -> None:
    """Say what runs, on which engine, and what has no counterpart there.

    Raises:
        ConfigError: there is no such engine.
    """
    engine = engine_class(engine_settings(session)["engine"])
    say_once(f"isaacgym is provided by dualfid_robot: {what} runs on engine {session.engine}")
    say_once(f"no counterpart: {_NO_COUNTERPART}; docs/isaacgym.md says what that does to a policy")
    lacks = [name for method, name in _READINGS.items() if getattr(engine, method) is getattr(Simulator, method)]
    if lacks:
        say_once(f"engine {session.engine} refuses {' and '.join(lacks)}")


class Simulation:
    """The handle of a simulation.

    The engine is built when it is first needed: at the first refresh, setter or step. Before that, not everything is
    known that it must measure.

    Attributes:
        params: as given; gravity and time steps are read when the engine is built.
        device: of the task's tensors.
        environments, grounds: what was created.
        measures_contacts: whether contact forces are asked for.
        steps: how often it was stepped.
        started: when it was created, s of `time.monotonic`.
        efforts, position_targets, velocity_targets: (N, D) on the engine's device. Efforts act in the next step alone.
        wrenches: (N, B, 6) that push bodies in the next step, or None.
        active: the first so many environments move. The others are frozen: no step and no setter changes them. None
            stands for all.
        failed: (N,) bool: environments that became non-finite and were put back since this was last cleared.
    """

    def __init__(self, params: SimParams, device: torch.device) -> None:
        self.params = params
        self.device = device
        self.environments: list[Environment] = []
        self.grounds: list[Ground] = []
        self.measures_contacts = False
        self.steps = 0
        self.started = time.monotonic()
        self.wrenches: Tensor | None = None
        self.active: int | None = None
        self._session = dataclasses.replace(CURRENT)
        self._simulator: Simulator | None = None
        self._changed = False

    @property
    def assets(self) -> list[Asset]:
        """Assets of one environment's actors; those of all environments are the same."""
        if not self.environments or not self.environments[0].actors:
            raise ConfigError("isaacgym: the simulation has no environment with an actor")
        return [actor.asset for actor in self.environments[0].actors]

    @property
    def num_envs(self) -> int:
        return len(self.environments)

    @property
    def _physics_dt(self) -> float:
        return self.params.dt / self.params.substeps

    @property
    def built(self) -> bool:
        """Whether the engine is built."""
        return self._simulator is not None

    @property
    def simulator(self) -> Simulator:
        """The engine, with the properties that actors have now."""
        if self._simulator is None:
            self._build()
        elif self._changed:
            self._take_over_properties()
        assert self._simulator is not None
        return self._simulator

    @property
    def layout(self) -> Layout:
        """Where everything is in an environment; builds the engine."""
        if self._simulator is None:
            self._build()
        return self._layout

    @property
    def num_active(self) -> int:
        """How many environments move."""
        return self.num_envs if self.active is None else self.active

    def step(self) -> None:
        """Advance the environments that move by `params.dt`. One that fails goes back to its initial state."""
        simulator, n = self.simulator, self.num_active
        if not n:
            return
        if self.wrenches is not None:
            simulator.apply_wrenches(self.wrenches)
            self.wrenches = None
        simulator.step(self._controls()[:n], n)
        self.efforts.zero_()
        self.steps += 1
        failed = simulator.failed[:n]
        if failed.any():
            ids = failed.nonzero().squeeze(1)
            simulator.set_state(ids, self._initial_qpos[ids], torch.zeros_like(simulator.qvel[ids]))
            self.failed[ids] = True
            say_once("an environment became non-finite and was put back to its initial state; more follow unsaid")

    def state_dict(self) -> dict[str, Any]:
        """What the next step depends on, besides the properties of actors."""
        return {
            "engine": self.simulator.snapshot(),
            "targets": [self.efforts, self.position_targets, self.velocity_targets],
            "wrenches": self.wrenches,
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict` of a simulation of the same scene and engine."""
        self.simulator.restore({name: np.asarray(value) for name, value in state["engine"].items()})
        targets = (self.efforts, self.position_targets, self.velocity_targets)
        for target, values in zip(targets, state["targets"], strict=True):
            target.copy_(values)
        self.wrenches, self.steps = state["wrenches"], state["steps"]

    def properties_changed(self) -> None:
        """Properties of actors, or gravity, were set; the engine takes over all of them when it is next used."""
        self._changed = True

    def _take_over_properties(self) -> None:
        """Give the engine the properties of actors, and gravity, that were set after it was built."""
        assert self._simulator is not None
        self._changed = False
        properties = self._properties(self.layout)
        if properties.within(self._nominal):
            values = properties.parameters(self._nominal, self._simulator.robot.model, self.layout)
            set_parameters(self._simulator, values, self._given)
        else:
            self._rebuild()
        factor = self._simulator.robot.changes.gravity
        gravity = torch.tensor([part * factor for part in self.params.gravity]).expand(self.num_envs, 3)
        if (gravity[0] != torch.from_numpy(self._simulator.robot.model.opt.gravity).float()).any():
            self._simulator.set_parameters(torch.arange(self.num_envs), {"gravity": gravity})

    def measure_contacts(self) -> None:
        """Measure contact forces from now on."""
        if not self.measures_contacts:
            self.measures_contacts = True
            self._rebuild()

    def _controls(self) -> Tensor:
        """(N, D) controls of the drives: what each of them understands by its mode."""
        controls = torch.where(self._in_effort, self.efforts, 0.0)
        controls += torch.where(self._in_position, self.position_targets + self._lead * self.velocity_targets, 0.0)
        return controls.add_(torch.where(self._in_velocity, self.velocity_targets, 0.0))

    def _properties(self, layout: Layout) -> WorldProperties:
        return WorldProperties.of(self.environments, self.grounds, self._physics_dt, layout)

    def _build(self) -> None:
        with using(self._session):  # that of the moment when the simulation was created, whoever reads it now
            self._build_engine()

    def _build_engine(self) -> None:
        """Build the engine for what was created, and put every environment into its initial state."""
        self._changed = False
        assets, alike = self.assets, self.environments[0].all_alike()
        for environment in self.environments:
            for mine, first, what in zip(environment.all_alike(), alike, _ALIKE, strict=True):
                if mine != first:
                    raise not_provided(f"environments of different {what}", "all must have the same in one order")
        layout = self._layout = Layout.of(assets)

        # One model for all, and what differs from it in each.
        properties = self._properties(layout)
        self._nominal = properties.greatest()
        robot = build_scene(self.environments, self.grounds, self.params.gravity, self._nominal, self._physics_dt)
        settings = engine_settings(CURRENT, robot) | {"substeps": self.params.substeps}
        touching = self._bodies_that_touch(settings, robot)
        self._touching = touching if self.measures_contacts else []
        bodies = [robot.body_names[body] for body in self._touching]
        simulator = self._simulator = make_simulator(settings, robot, self.num_envs, self.params.dt, bodies)
        self._kinematics: BodyKinematics | None = None
        self._given: set[str] = set()
        set_parameters(simulator, properties.parameters(self._nominal, robot.model, layout), self._given)

        # Targets, forces and states.
        shape = (self.num_envs, layout.dofs)
        self.efforts, self.position_targets, self.velocity_targets = (torch.zeros(shape) for _ in range(3))
        modes = torch.from_numpy(properties.modes)
        self._in_effort = modes == DofDriveMode.DOF_MODE_EFFORT
        self._in_position = modes == DofDriveMode.DOF_MODE_POS
        self._in_velocity = modes == DofDriveMode.DOF_MODE_VEL
        # A position drive's damping refers to its velocity target: so far the position target leads.
        gains, damping = properties.gains, properties.rates - properties.gains * self._physics_dt
        self._lead = torch.from_numpy(damping / gains.clip(1e-9)).float() * self._in_position
        self.failed = torch.zeros(self.num_envs, dtype=torch.bool)
        self._initial_qpos = self._initial_positions(simulator, properties)
        everyone = torch.arange(self.num_envs)
        simulator.set_state(everyone, self._initial_qpos, torch.zeros_like(simulator.qvel))
        say_once(
            f"engine {CURRENT.engine}: {self.num_envs} worlds of {len(robot.body_names)} bodies and {robot.model.nu} "
            f"joints, physics at {self.params.substeps / self.params.dt:.0f} Hz, tensors on {self.device}"
        )

    def _bodies_that_touch(self, settings: Mapping[str, Any], robot: RobotModel) -> list[int]:
        """Places of the bodies that contacts can push in an engine; a line names the others, whose forces are 0."""
        engine = engine_class(settings["engine"])
        pairs = engine.touching(robot, engine_config(settings, CURRENT.engine))
        able = {body for pair in pairs for body in pair}
        could = {body for pair in robot.touching() for body in pair}
        if lost := [body for body in robot.body_names if body in could - able]:
            say_once(f"engine {CURRENT.engine}: nothing touches {', '.join(lost)}: all else goes through them")
        return [place for place, body in enumerate(robot.body_names) if body in able]

    def contact_wrenches(self) -> Tensor:
        """Net contact force and torque of each body in the last substep, (N, B, 6) as in `Simulator.contact_wrench`."""
        measured = self.simulator.contact_wrench
        if len(self._touching) == self.layout.bodies:
            return measured
        wrenches = torch.zeros(self.num_envs, self.layout.bodies, 6)
        wrenches[:, self._touching] = measured
        return wrenches

    def body_states(self) -> Tensor:
        """States as of `Simulator.body_states`. Where the engine gives none, they are computed from the joints."""
        simulator = self.simulator
        if type(simulator).body_states is not Simulator.body_states:
            return simulator.body_states()
        if self._kinematics is None:
            self._kinematics = BodyKinematics(simulator.robot)
        return self._kinematics(simulator.qpos, simulator.qvel)

    def _rebuild(self) -> None:
        """Build the engine anew, in the state in which it is."""
        if self._simulator is None:
            return
        old, kept = self._simulator, (self.efforts, self.position_targets, self.velocity_targets)
        qpos, qvel = old.qpos.clone(), old.qvel.clone()
        old.close()
        self._build()
        self.simulator.set_state(torch.arange(self.num_envs), qpos, qvel)
        self.efforts, self.position_targets, self.velocity_targets = kept

    def _initial_positions(self, simulator: Simulator, properties: WorldProperties) -> Tensor:
        """(N, nq): roots at their actors' poses, joints at 0 or at the limit that is nearest to it."""
        qpos = torch.zeros_like(simulator.qpos)
        for slot, root in enumerate(self.layout.roots):
            poses = [environment.actors[slot].pose for environment in self.environments]
            rows = torch.tensor([(*pose.p, pose.r.w, pose.r.x, pose.r.y, pose.r.z) for pose in poses])
            if root is not None:
                qpos[:, root[0] : root[0] + 7] = rows
            elif (rows != rows[0]).any():
                raise not_provided("a fixed base whose pose differs between environments")
        limits = simulator.robot.joint_limits + (properties.limits - self._nominal.limits)
        qpos[:, self.layout.dof_qpos] = torch.from_numpy(np.clip(0.0, *np.moveaxis(limits, -1, 0))).float()
        return qpos
