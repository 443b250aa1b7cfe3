"""What an exported policy says about itself: docs/policy_format.md, as types.

This module needs nothing but Python, so that it can be read on a robot.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

from dualfid_robot.command import Command
from dualfid_robot.errors import ConfigError
from dualfid_robot.settings import parse_settings

SCHEMA_VERSION = 3

Numbers = tuple[float, ...]
Bounds = tuple[float | None, ...]
"""One number per element; None where there is no bound."""


@dataclass(frozen=True)
class Package:
    """The program that wrote the files."""

    version: str
    commit: str


@dataclass(frozen=True)
class RobotInfo:
    """The robot and its scene.

    Attributes:
        name: the model's name.
        file: its MJCF, in the same folder.
        feet: bodies that keep their contacts at reduced fidelity.
        contact_bodies: bodies whose contact wrench the observation looks at, in the order of its input.
        floating_base: whether qpos begins with the root's position (3) and quaternion (w, x, y, z).
        nq, nv: columns of qpos and qvel.
    """

    name: str
    file: str
    feet: tuple[str, ...]
    contact_bodies: tuple[str, ...]
    floating_base: bool
    nq: int
    nv: int


@dataclass(frozen=True)
class Joint:
    """One joint of the model, in the model's order. Units are SI, rad for hinges.

    Attributes:
        type: of MuJoCo: "free", "ball", "hinge" or "slide".
        qpos, qvel: its first column in qpos and in qvel.
        default_position: (columns in qpos,) of the model's initial state.
        low, high: limits of a hinge or slide, or None.
        armature: rotor inertia, kg m² or kg.
        damping: N m s/rad or N s/m.
        axis: (3,) unit vector of a hinge or slide, world frame, in the model's initial state. Empty for others.
    """

    name: str
    type: Literal["free", "ball", "hinge", "slide"]
    qpos: int
    qvel: int
    default_position: Numbers
    low: float | None
    high: float | None
    armature: float
    damping: float
    axis: Numbers


@dataclass(frozen=True)
class Actuator:
    """One actuator, in the order of actions and controls.

    Attributes:
        joint: name of the joint on which it acts. Empty if it acts on something else, such as a site.
        kind: "motor", "position", "velocity" or "dc motor" (docs/engines.md). "other" has another force law.
        gear: joint torque per unit of force.
        kp, kd: feedback gains of servos, 0 without feedback.
        control_low, control_high: bounds on the control, or None.
        effort_limit: greatest force on the joint, N m or N, or None.
        velocity_limit: speed at which a DC motor's torque is gone, rad/s or m/s, or None.
        delay: s.
    """

    name: str
    joint: str
    kind: Literal["motor", "position", "velocity", "dc motor", "other"]
    gear: float
    kp: float
    kd: float
    control_low: float | None
    control_high: float | None
    effort_limit: float | None
    velocity_limit: float | None
    delay: float


@dataclass(frozen=True)
class ObservationTerm:
    """One part of the observation, in order.

    Attributes:
        dim: columns of one value. The term takes dim * history columns, oldest value first.
        scale: factor on the raw value.
        clip: bound on the scaled value.
        noise: standard deviation of the noise that training added to the raw value, 0 without noise.
        history: number of values shown.
        frame, unit: of the raw value.
        sources: inputs that the value depends on, by their names in docs/policy_format.md and columns, such as
            "qpos[3:7]".
    """

    name: str
    dim: int
    scale: float
    clip: float
    noise: float
    history: int
    frame: str
    unit: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Action:
    """How an action becomes a control, per actuator: control = scale * clip(action, -clip, clip) + offset. If
    cumulative, control = limit(previous control + scale * clip(action, -clip, clip)) within the actuator's bounds."""

    type: str
    scale: Numbers
    offset: Numbers
    clip: float
    cumulative: bool


@dataclass(frozen=True)
class Memory:
    """A quantity that a world carries from step to step. It is the input `memory.<name>` of the observation graph. If
    the task changes it, the output `next.<name>` is its value for the next step."""

    name: str
    columns: int


@dataclass(frozen=True)
class Timing:
    """control_dt = physics_dt * decimation, s, in E_high."""

    control_dt: float
    physics_dt: float
    decimation: int


@dataclass(frozen=True)
class Lora:
    """The adapter. `rank` is 0 without a low-rank adapter. `merged` says whether the exported weights contain it."""

    rank: int
    alpha: float
    merged: bool


@dataclass(frozen=True)
class Dial:
    """Range and default of the input `dial`: W + dial * s * B * A."""

    low: float
    high: float
    default: float


@dataclass(frozen=True)
class PolicyInfo:
    """The network.

    Attributes:
        head: which policy: "base", "adapted", or both with a "dial" between them.
        normaliser_baked: always true, because the network normalises observations itself.
        obs_dim, act_dim: columns.
        opset: of the ONNX files.
        dtype: of inputs and outputs.
    """

    head: Literal["base", "adapted", "dial"]
    lora: Lora
    dial: Dial | None
    normaliser_baked: bool
    obs_dim: int
    act_dim: int
    opset: int
    dtype: str


@dataclass(frozen=True)
class Training:
    """What the policy was trained in.

    Attributes:
        fidelity_trained_on: "low", "high" or "both".
        engines: settings of E_high under "high"; under "low" those of E_low's engines, by name.
        versions: of packages and of the machine.
        share_history: share of low environments, evenly thinned over the run.
        calibration: fitted settings of low simulators, by engine.
    """

    seed: int
    iterations: int
    samples: int
    cost_seconds: float
    fidelity_trained_on: Literal["low", "high", "both"]
    engines: dict[str, Any]
    versions: dict[str, Any]
    share_history: Numbers
    calibration: dict[str, Any]


@dataclass(frozen=True)
class EvaluationRecord:
    """Measured closed-loop return of the exported file.

    Attributes:
        simulator: settings of the engine.
        returns: of each episode, from the starts in `starts.npz`, in their order.
        lengths: steps of each.
        reward: mean over the episodes of each term's sum, in the order of `Metadata.reward`. Their sum is `mean`.
        checkpoint_mean: mean return of the checkpoint's policy from the same starts.
    """

    simulator: dict[str, Any]
    mean: float
    low: float
    high: float
    checkpoint_mean: float
    returns: Numbers
    lengths: Numbers
    reward: Numbers


@dataclass(frozen=True)
class Visited:
    """Extremes of each actuator's joint over the exporter's evaluation, in the actuators' order. They set a robot's
    limits."""

    position_low: Bounds
    position_high: Bounds
    velocity: Bounds


@dataclass(frozen=True)
class Sample:
    """A visited observation and the policy's action (at dial 1), to check a robot's arithmetic."""

    observation: Numbers
    action: Numbers


@dataclass(frozen=True)
class Verification:
    """Largest differences that the exporter found against PyTorch's policy and the task's own code.

    Attributes:
        onnx, torchscript, header: differences of actions, beyond ±1 relative to their size. None without the file.
        observation: differences of observations and controls.
        reward: differences of the reward's terms.
        observations_random, observations_visited: how many were compared.
    """

    onnx: float
    torchscript: float | None
    header: float | None
    observation: float
    reward: float
    observations_random: int
    observations_visited: int


@dataclass(frozen=True)
class Metadata:
    """All metadata of a policy.

    Attributes:
        reward: names of the reward's terms.
        episode_length: control steps after which an episode of the task is truncated.
        evaluations: by the engine's name.
    """

    schema_version: int
    package: Package
    task: str
    robot: RobotInfo
    joints: tuple[Joint, ...]
    actuators: tuple[Actuator, ...]
    timing: Timing
    observation: tuple[ObservationTerm, ...]
    action: Action
    commands: tuple[Command, ...]
    memory: tuple[Memory, ...]
    reward: tuple[str, ...]
    episode_length: int
    policy: PolicyInfo
    training: Training
    evaluations: dict[str, EvaluationRecord]
    visited: Visited
    sample: Sample
    verification: Verification

    def to_json(self) -> str:
        """The metadata as JSON, with every digit of every number.

        Raises:
            ValueError: a number is not finite.
        """
        return json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, where: str) -> Metadata:
        """Read `to_json`.

        Args:
            text: the JSON.
            where: its name in errors.

        Raises:
            ConfigError: the text is no JSON, has another schema version, or lacks or adds a key.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"{where}: damaged, or no metadata of a policy ({error})") from error
        version = values.get("schema_version") if isinstance(values, dict) else None
        if version != SCHEMA_VERSION:
            raise ConfigError(
                f"{where}: schema_version={version}: this version reads {SCHEMA_VERSION}; export it again"
            )
        metadata: Metadata = parse_settings(cls, values, where)
        return metadata
