"""Runs an exported policy on one robot or a batch of them: observation, network, action mapping.

This module needs only NumPy and onnxruntime. Every array is float32 and world-major (n, ·).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnxruntime

from dualfid_robot.errors import ConfigError
from dualfid_robot.onboard.metadata import Metadata

POLICY, OBSERVATION, EPISODE = "policy.onnx", "observation.onnx", "episode.onnx"
METADATA, STARTS, SUMS = "policy.json", "starts.npz", "SHA256SUMS"
METADATA_KEY = "dualfid_robot"
"""Key of the metadata's JSON among the properties of policy.onnx."""

MEMORY_INPUT, MEMORY_OUTPUT, MEASURE_OUTPUT, REWARD_OUTPUT = "memory.", "next.", "measure.", "reward."


@dataclass
class RobotState:
    """The measured state of n robots, in the policy's layout (docs/policy_format.md).

    Attributes:
        qpos: (n, nq); qvel: (n, nv); contact_wrench: (n, contact bodies, 6).
    """

    qpos: np.ndarray
    qvel: np.ndarray
    contact_wrench: np.ndarray


class ExportedPolicy:
    """The files of one export, checked against their sums.

    Attributes:
        folder: where they are.
        metadata: what they say about themselves.
    """

    def __init__(self, path: Path) -> None:
        """Read an export.

        Args:
            path: its folder, or the `policy.onnx` in it.

        Raises:
            ConfigError: a file is missing, damaged or edited, or of another schema.
        """
        self.folder = path.parent if path.suffix == ".onnx" else path
        if not (self.folder / POLICY).is_file():
            raise ConfigError(f"policy={path}: no {POLICY} there; name the folder that export.py wrote")
        check_sums(self.folder)
        self._network = _session(self.folder / POLICY)
        embedded = self._network.get_modelmeta().custom_metadata_map.get(METADATA_KEY, "")
        self.metadata = Metadata.from_json(embedded, f"policy={self.folder / POLICY}")
        if (self.folder / METADATA).read_bytes() != embedded.encode():
            raise ConfigError(f"policy={self.folder / METADATA}: differs from the metadata inside {POLICY}")
        self._observe = _session(self.folder / OBSERVATION)
        self._layout = _HistoryLayout(self.metadata)

    def action(self, observation: np.ndarray, dial: float = 1.0) -> np.ndarray:
        """The policy's action (n, act_dim), not yet clipped, for observations (n, obs_dim).

        Args:
            dial: how much of the adapter acts, where the policy has a dial.
        """
        inputs = {"observation": observation}
        if self.metadata.policy.dial is not None:
            inputs["dial"] = np.array([dial], np.float32)
        action: np.ndarray = self._network.run(["action"], inputs)[0]
        return action

    def observe(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs of the observation graph, by name."""
        names = [output.name for output in self._observe.get_outputs()]
        wanted = {node.name for node in self._observe.get_inputs()}
        results = self._observe.run(names, {name: array for name, array in inputs.items() if name in wanted})
        return dict(zip(names, results, strict=True))

    @cached_property
    def _judge(self) -> onnxruntime.InferenceSession:
        return _session(self.folder / EPISODE)

    def judge(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs of the episode graph, for simulators: reward (n,) and its terms, terminated (n,), measures."""
        names = [output.name for output in self._judge.get_outputs()]
        wanted = {node.name for node in self._judge.get_inputs()}
        results = self._judge.run(names, {name: array for name, array in inputs.items() if name in wanted})
        return dict(zip(names, results, strict=True))


class Controller:
    """Runs a policy on n robots: `begin` once per episode, then `act` once per control period.

    Attributes:
        memory: (n, columns) by name, carried from step to step. Write commands here.
        action: (n, act_dim) the last clipped action; control: (n, act_dim) the control that it became.
        steps: (n,) int32 control periods since `begin`.
        observation: (n, obs_dim) what the policy last saw.
    """

    def __init__(self, policy: ExportedPolicy, n: int = 1, dial: float = 1.0) -> None:
        metadata = policy.metadata
        if metadata.policy.dial is not None and not metadata.policy.dial.low <= dial <= metadata.policy.dial.high:
            raise ConfigError(
                f"dial={dial}: must be a number in [{metadata.policy.dial.low:g}, {metadata.policy.dial.high:g}]"
            )
        if metadata.policy.dial is None and dial != 1.0:
            raise ConfigError(f"dial={dial}: this policy has no dial; export it with policy=dial")
        self.policy, self.dial = policy, dial
        mapping = metadata.action
        self._scale, self._offset = (np.array(v, np.float32) for v in (mapping.scale, mapping.offset))
        self._low, self._high = control_bounds(metadata)
        self.memory = {entry.name: np.zeros((n, entry.columns), np.float32) for entry in metadata.memory}
        self.action = np.zeros((n, metadata.policy.act_dim), np.float32)
        self.control = np.zeros_like(self.action)
        self.steps = np.zeros(n, np.int32)
        self.observation = np.zeros((n, metadata.policy.obs_dim), np.float32)
        self._first = np.ones(n, bool)

    def begin(self, state: RobotState, memory: dict[str, np.ndarray] | None = None) -> None:
        """Begin an episode on every robot.

        Args:
            state: as measured now.
            memory: by name. What is missing begins with zeros.
        """
        for name, values in self.memory.items():
            values[:] = 0.0 if memory is None or name not in memory else memory[name]
        self.action[:] = 0.0
        self.control[:] = 0.0
        self.steps[:] = 0
        self._first[:] = True
        self.control[:] = self.policy.observe(self.inputs(state))["initial_control"]

    def act(self, state: RobotState) -> np.ndarray:
        """Controls (n, act_dim), in actuator units, for the next control period."""
        self.steps += ~self._first
        outputs = self.policy.observe(self.inputs(state))
        self.policy._layout.write(outputs["values"], self._first, self.observation)
        for name, values in self.memory.items():
            values[:] = outputs.get(MEMORY_OUTPUT + name, values)
        mapping = self.policy.metadata.action
        self.action[:] = self.policy.action(self.observation, self.dial).clip(-mapping.clip, mapping.clip)
        if mapping.cumulative:
            self.control[:] = (self.control + self._scale * self.action).clip(self._low, self._high)
        else:
            self.control[:] = self._scale * self.action + self._offset
        self._first[:] = False
        return self.control

    def inputs(self, state: RobotState) -> dict[str, np.ndarray]:
        """The inputs of the observation graph."""
        return {
            "qpos": state.qpos,
            "qvel": state.qvel,
            "contact_wrench": state.contact_wrench,
            "action": self.action,
            "control": self.control,
            "step": self.steps,
            "first": self._first,
            **{MEMORY_INPUT + name: values for name, values in self.memory.items()},
        }

    def judge(self, previous_qpos: np.ndarray, state: RobotState) -> dict[str, np.ndarray]:
        """For simulators: reward, termination and measures of the period that led from `previous_qpos` to `state`. Call
        this before `act` sees that state."""
        return self.policy.judge(
            self.inputs(state) | {"previous_qpos": previous_qpos, "step": self.steps + np.int32(1)}
        )


class _HistoryLayout:
    """Places of the terms' newest values in an observation. Histories stand oldest first."""

    def __init__(self, metadata: Metadata) -> None:
        self.terms = []
        value = column = 0
        for term in metadata.observation:
            end = column + term.dim * term.history
            self.terms.append((slice(value, value + term.dim), slice(column, end), term.dim, term.history))
            value, column = value + term.dim, end

    def write(self, values: np.ndarray, first: np.ndarray, out: np.ndarray) -> None:
        """Move histories on by one value. At an episode's beginning its first value fills them."""
        for source, target, dim, history in self.terms:
            newest = values[:, source]
            older = out[:, target.start + dim : target.stop]
            older = np.where(first[:, None], np.tile(newest, history - 1), older)
            out[:, target] = np.concatenate((older, newest), 1)


def control_bounds(metadata: Metadata) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds (act_dim,) of the controls, infinite where there is none."""
    low = [-np.inf if actuator.control_low is None else actuator.control_low for actuator in metadata.actuators]
    high = [np.inf if actuator.control_high is None else actuator.control_high for actuator in metadata.actuators]
    return np.array(low, np.float32), np.array(high, np.float32)


def write_sums(folder: Path) -> None:
    """Write the SHA-256 of every file of a folder in the format of `sha256sum`."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != SUMS)
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def check_sums(folder: Path) -> None:
    """Raise ConfigError if a file that `write_sums` saw is missing or changed."""
    sums = folder / SUMS
    if not sums.is_file():
        raise ConfigError(f"policy={folder}: {SUMS} is missing; copy the whole folder that export.py wrote")
    try:
        pairs = [line.split("  ", 1) for line in sums.read_text("utf-8").splitlines()]
        digests = {name: digest for digest, name in pairs}
    except ValueError as error:
        raise ConfigError(f"policy={sums}: is damaged; export it again") from error
    present = [name for name in (POLICY, OBSERVATION, EPISODE, METADATA, STARTS) if (folder / name).is_file()]
    for name in dict.fromkeys((*digests, *present)):
        path = folder / name
        if not path.is_file():
            raise ConfigError(f"policy={path}: is missing; copy the whole folder that export.py wrote")
        if hashlib.sha256(path.read_bytes()).hexdigest() != digests.get(name):
            raise ConfigError(f"policy={path}: is not as export.py wrote it (its SHA-256 differs); export it again")


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # more threads gain nothing here and disturb a robot's pace
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions have no public base
        raise ConfigError(f"policy={path}: onnxruntime cannot load it ({str(error).splitlines()[0][:160]})") from error
