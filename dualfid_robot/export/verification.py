"""Whether what was exported does what the checkpoint does, and what those checks found."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dualfid_robot.errors import ConfigError
from dualfid_robot.evaluate.evaluation import Evaluation, paired_difference
from dualfid_robot.export.closed_loop import ExportedRun
from dualfid_robot.export.cpp.compiled_header import CompiledHeader, check_controller
from dualfid_robot.export.cpp.header import HEADER
from dualfid_robot.export.networks import quiet
from dualfid_robot.onboard.runtime import POLICY, ExportedPolicy
from dualfid_robot.policies.actor_critic import DualActorCritic

TORCHSCRIPT = "policy.pt"
TOLERANCE = 1e-5
"""Largest difference of an action from PyTorch's that passes, see `_action_difference`."""
OBSERVATION_TOLERANCE = 1e-4
"""Likewise of a scaled observation and of a control, which are bounded while what they are computed from is not."""

_DIALS = (0.0, 0.5, 1.0, 1.5)
RANDOM, VISITED = 10_000, 1_000
OBSERVED = "observation.onnx and action mapping"
REWARDED = "the reward's terms by episode.onnx"


@dataclass
class Report:
    """What a check found, for a reader.

    Attributes:
        differences: largest absolute differences, by what was compared.
        observations: number of random and of visited observations.
        evaluations: by engine: the checkpoint's and the exported files'.
    """

    differences: dict[str, float] = field(default_factory=dict)
    observations: tuple[int, int] = (0, 0)
    evaluations: dict[str, tuple[Evaluation, Evaluation]] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """One line per check."""
        random, visited = self.observations
        lines = [f"{name}: largest difference {value:.2g}" for name, value in self.differences.items()]
        lines.insert(0, f"compared on {random} random and {visited} visited observations:")
        for name, (checkpoint, exported) in self.evaluations.items():
            lines.append(f"{name}: {exported.line()}; the checkpoint's policy: {checkpoint.mean:.4g}")
        return lines


@torch.no_grad()
def reference_action(policy: DualActorCritic, head: str, observations: Tensor, dial: float = 1.0) -> Tensor:
    """What the checkpoint's policy does, by PyTorch, on observations (n, num_actor_obs)."""
    hidden = policy.num_obs - policy.num_actor_obs
    observations = torch.cat((observations, observations.new_zeros(len(observations), hidden)), 1)
    return policy.action_mean(observations, dial if head == "dial" else head)  # type: ignore[arg-type]


def check_observations(policy: DualActorCritic, visited: Tensor, seed: int) -> Tensor:
    """Random observations around the normaliser's statistics, a part of them far out, and then visited ones."""
    generator = torch.Generator().manual_seed(seed)
    columns = slice(0, policy.num_actor_obs)
    mean, deviation = policy.normalizer.mean[columns], policy.normalizer.var[columns].sqrt()
    spread = torch.ones(RANDOM, 1, dtype=torch.float64)
    spread[::10], spread[5::100] = 10.0, 1e4
    noise = torch.randn(RANDOM, len(mean), generator=generator, dtype=torch.float64)
    chosen = torch.randperm(len(visited), generator=generator)[:VISITED]
    return torch.cat(((mean + spread * deviation * noise).float(), visited[chosen, columns]))


def compare_network(policy: DualActorCritic, head: str, observations: Tensor, folder: Path, report: Report) -> None:
    """onnxruntime and TorchScript against PyTorch.

    Raises:
        ConfigError: one of them differs.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / POLICY, providers=["CPUExecutionProvider"])
    with quiet():
        script = torch.jit.load(folder / TORCHSCRIPT) if (folder / TORCHSCRIPT).is_file() else None
    for dial in _DIALS if head == "dial" else (1.0,):
        expected = reference_action(policy, head, observations, dial)
        inputs = {"observation": observations} | ({"dial": torch.tensor([dial])} if head == "dial" else {})
        found = {POLICY: torch.from_numpy(session.run(["action"], {k: v.numpy() for k, v in inputs.items()})[0])}
        if script is not None:
            with torch.no_grad():
                found[TORCHSCRIPT] = script(*inputs.values())
        for name, actions in found.items():
            difference = _action_difference(actions.numpy(), expected.numpy())
            report.differences[name] = max(difference, report.differences.get(name, 0.0))
            require_small(name, difference, TOLERANCE)


def check_sample(exported: ExportedPolicy) -> None:
    """The stored sample, by the files as they are now: the header was written again since it was compared."""
    sample = exported.metadata.sample
    observation = np.array([sample.observation], np.float32)
    actions = {POLICY: exported.action(observation)}
    if (exported.folder / HEADER).is_file():
        with CompiledHeader(exported.folder) as compiled:
            actions[HEADER] = compiled.forward(observation)
    for name, action in actions.items():
        difference = _action_difference(action[0], np.array(sample.action))
        require_small(f"{name} on the stored sample", difference, TOLERANCE)


def compare_header(
    exported: ExportedPolicy, policy: DualActorCritic, observations: Tensor, run: ExportedRun, report: Report
) -> None:
    """The compiled header against PyTorch, and its controller against runtime.py's along an episode.

    Raises:
        ConfigError: it differs, or does not compile.
    """
    head = exported.metadata.policy.head
    with CompiledHeader(exported.folder) as compiled:
        for dial in _DIALS if head == "dial" else (1.0,):
            expected = reference_action(policy, head, observations, dial)
            difference = _action_difference(compiled.forward(observations.numpy(), dial), expected.numpy())
            report.differences[HEADER] = max(difference, report.differences.get(HEADER, 0.0))
            require_small(HEADER, difference, TOLERANCE)
    difference = check_controller(exported, run.states, run.commands)
    report.differences[f"controller of {HEADER}"] = difference
    require_small(f"the controller of {HEADER}", difference, OBSERVATION_TOLERANCE)


def _action_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference.

    Actions beyond ±1, which a robot clips, are compared relative to their size. There float32 itself ends: PyTorch's
    own sum is no closer to the exact one.
    """
    return float((np.abs(found - expected) / np.maximum(1.0, np.abs(expected))).max())


def require_small(what: str, difference: float, tolerance: float) -> None:
    if not difference <= tolerance:
        raise ConfigError(
            f"{what} differs from the checkpoint by {difference:.3g}, allowed is {tolerance:g}; nothing was exported"
        )


def require_same_return(engine: str, checkpoint: Evaluation, exported: Evaluation) -> None:
    """Raise ConfigError where the mean return differs by more than chance. Sums of onnxruntime and PyTorch differ in
    their last digit, and a robot in contact amplifies that."""
    difference, chance = paired_difference(exported.returns, checkpoint.returns)
    allowed = max(chance, 1e-3 * abs(checkpoint.mean))
    if not abs(difference) <= allowed:
        raise ConfigError(
            f"the exported files' return in {engine}, {exported.mean:.6g}, differs from the checkpoint's, "
            f"{checkpoint.mean:.6g}, by more than {allowed:.3g}; nothing was exported"
        )
