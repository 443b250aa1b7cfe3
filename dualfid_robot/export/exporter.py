"""From a checkpoint to the files of an export, each checked against the checkpoint (docs/policy_format.md)."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import dualfid_robot
from dualfid_robot.algorithms.allocation import Allocator
from dualfid_robot.config.engines import simulator_settings
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.envs.foreign_task import ForeignTask
from dualfid_robot.envs.task import Task
from dualfid_robot.errors import ConfigError
from dualfid_robot.evaluate.agents import policy_agent
from dualfid_robot.evaluate.evaluation import Evaluation, paired_difference
from dualfid_robot.export.closed_loop import ExportedRun, Visit, run_exported, visit
from dualfid_robot.export.cpp.compiled_header import CompiledHeader, check_controller
from dualfid_robot.export.cpp.header import HEADER, write_header
from dualfid_robot.export.graphs import write_graphs
from dualfid_robot.export.networks import (
    DIAL_HIGH,
    DIAL_LOW,
    OPSET,
    DialLinear,
    DialNetwork,
    FixedNormalizer,
    embed_property,
    quiet,
    write_network_onnx,
    write_torchscript,
)
from dualfid_robot.export.request import ExportRequest
from dualfid_robot.export.robot_description import describe_actuators, describe_joints, describe_robot
from dualfid_robot.export.robot_file import ROBOT, write_robot
from dualfid_robot.export.sources import term_sources
from dualfid_robot.onboard import metadata as meta
from dualfid_robot.onboard.metadata import Metadata
from dualfid_robot.onboard.runtime import (
    EPISODE,
    METADATA,
    METADATA_KEY,
    OBSERVATION,
    POLICY,
    STARTS,
    ExportedPolicy,
    write_sums,
)
from dualfid_robot.policies.actor_critic import DualActorCritic
from dualfid_robot.policies.dual_linear import DualLinear
from dualfid_robot.runs.checkpoint import load_checkpoint
from dualfid_robot.runs.metrics import METRICS, read_metrics
from dualfid_robot.runs.run_log import versions
from dualfid_robot.runs.saved_policy import load_policy

TORCHSCRIPT = "policy.pt"
TOLERANCE = 1e-5
"""Largest difference of an action from PyTorch's that passes, see `_action_difference`."""
OBSERVATION_TOLERANCE = 1e-4
"""Likewise of a scaled observation and of a control, which are bounded while what they are computed from is not."""

_DIALS = (0.0, 0.5, 1.0, 1.5)
_RANDOM, _VISITED = 10_000, 1_000
_SHARES = 200  # points of the share's history


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


def write_export(checkpoint: Path, request: ExportRequest, folder: Path) -> Report:
    """Write all files of an export into an empty folder and check them.

    Args:
        checkpoint: the file.

    Raises:
        ConfigError: the checkpoint is none, or what was written differs from it, in one line.
    """
    state = load_checkpoint(checkpoint)
    # As in the nominal world, so that the starts and their returns can be had again anywhere.
    settings = json.loads(state["settings"])
    replaced = simulator_settings(request.simulator, settings["task"], "simulator") if request.simulator else None
    experiment, policy = load_policy(checkpoint, None, replaced, request.sim_device, randomize=False)
    task, head = experiment.make_task(), request.policy
    if isinstance(task, ForeignTask):
        task.refuse(f"checkpoint={checkpoint}: cannot be exported")
    if head == "dial" and experiment.network.adapter.kind == "none":
        raise ConfigError(
            "policy=dial: the checkpoint's policy has no adapter (adapter.kind=none); allowed are base, adapted"
        )
    engines = _engines(experiment, request)
    network = network_of(policy, head).eval()
    write_network_onnx(network, policy.num_actor_obs, folder / POLICY)
    if "torchscript" in request.formats:
        write_torchscript(network, policy.num_actor_obs, folder / TORCHSCRIPT)
    if request.graphs is None:
        with quiet():
            write_graphs(task, folder)
    else:
        for name in (OBSERVATION, EPISODE):
            shutil.copyfile(request.graphs / name, folder / name)
    write_robot(experiment.robot, folder)

    report = Report()
    agent = policy_agent(policy, "base" if head == "base" else "adapted")

    def visited(simulator: Mapping[str, Any]) -> Visit:
        return visit(experiment, simulator, request.num_envs, request.seed, agent, _VISITED)

    references = {name: visited(simulator) for name, simulator in engines.items()}
    first = next(iter(references.values()))
    np.savez(folder / STARTS, **first.starts)  # type: ignore[arg-type]
    policy.cpu()
    observations = _observations(policy, first.observations, request.seed)
    report.observations = (_RANDOM, len(observations) - _RANDOM)
    _compare_network(policy, head, observations, folder, report)

    metadata = Metadata(
        schema_version=meta.SCHEMA_VERSION,
        package=meta.Package(dualfid_robot.__version__, versions()["commit"]),
        task=experiment.task.name,
        robot=describe_robot(experiment.robot, task.contact_bodies, ROBOT),
        joints=describe_joints(experiment.robot),
        actuators=describe_actuators(experiment.robot),
        timing=_timing(experiment, settings),
        observation=_observation_terms(task, experiment, settings, folder),
        action=_action(task),
        commands=tuple(task.commands),
        memory=tuple(meta.Memory(name, columns) for name, columns in task.memory.items()),
        reward=tuple(first.evaluation.reward_terms),
        episode_length=task.config.episodeLength,
        policy=_policy_info(policy, head, experiment),
        training=_training(checkpoint, state, settings, experiment),
        evaluations={},
        visited=_visited(experiment, first),
        sample=_sample(policy, head, first.observations),
        verification=_verification(report),
    )
    exported = _publish(metadata, folder)
    for name, simulator in engines.items():
        run = run_exported(experiment, simulator, request.num_envs, request.seed, exported)
        report.evaluations[name] = references[name].evaluation, run.evaluation
        report.differences[OBSERVED] = max(run.difference, report.differences.get(OBSERVED, 0.0))
        report.differences[REWARDED] = max(run.reward_difference, report.differences.get(REWARDED, 0.0))
        _require_small(f"{OBSERVED} in {name}", run.difference, OBSERVATION_TOLERANCE)
        _require_small(f"{REWARDED} in {name}", run.reward_difference, OBSERVATION_TOLERANCE)
        _require_same_return(name, *report.evaluations[name])
    evaluations = {name: _evaluation(engines[name], *pair) for name, pair in report.evaluations.items()}
    metadata = dataclasses.replace(metadata, evaluations=evaluations, verification=_verification(report))
    if "cpp" in request.formats:
        write_header(metadata, folder)
        _compare_header(exported, policy, observations, run, report)
        metadata = dataclasses.replace(metadata, verification=_verification(report))
        write_header(metadata, folder)
    _check_sample(_publish(metadata, folder))
    return report


# --- the network -----------------------------------------------------------------------------------------------------


def network_of(policy: DualActorCritic, head: str) -> nn.Module:
    """One policy of a network, or both with a dial between them, as plain float32 layers behind the normaliser."""
    modules: list[nn.Module] = list(policy.merged_actor("adapted" if head == "adapted" else "base"))
    normalizer = policy.normalizer
    columns = slice(0, policy.num_actor_obs)
    scale = (normalizer.var[columns] + normalizer.EPSILON).rsqrt().float()
    modules[0] = FixedNormalizer(normalizer.mean[columns].float(), scale, normalizer.clip)
    if head != "dial":
        return nn.Sequential(*modules)
    adapters = iter(policy.actor.dual_layers())
    return DialNetwork([_dial(next(adapters)) if isinstance(module, nn.Linear) else module for module in modules])


@torch.no_grad()
def _dial(layer: DualLinear) -> DialLinear:
    lora_a = None if layer.lora_a is None else layer.lora_a.clone()
    lora_b = torch.zeros_like(layer.weight) if layer.lora_b is None else layer.lora_b.clone()
    bias_delta = torch.zeros_like(layer.bias) if layer.bias_delta is None else layer.bias_delta.clone()
    return DialLinear(layer.weight.clone(), layer.bias.clone(), lora_a, lora_b, bias_delta, layer.scaling)


@torch.no_grad()
def reference_action(policy: DualActorCritic, head: str, observations: Tensor, dial: float = 1.0) -> Tensor:
    """What the checkpoint's policy does, by PyTorch, on observations (n, num_actor_obs)."""
    hidden = policy.num_obs - policy.num_actor_obs
    observations = torch.cat((observations, observations.new_zeros(len(observations), hidden)), 1)
    return policy.action_mean(observations, dial if head == "dial" else head)  # type: ignore[arg-type]


def _observations(policy: DualActorCritic, visited: Tensor, seed: int) -> Tensor:
    """Random observations around the normaliser's statistics, a part of them far out, and then visited ones."""
    generator = torch.Generator().manual_seed(seed)
    columns = slice(0, policy.num_actor_obs)
    mean, deviation = policy.normalizer.mean[columns], policy.normalizer.var[columns].sqrt()
    spread = torch.ones(_RANDOM, 1, dtype=torch.float64)
    spread[::10], spread[5::100] = 10.0, 1e4
    noise = torch.randn(_RANDOM, len(mean), generator=generator, dtype=torch.float64)
    chosen = torch.randperm(len(visited), generator=generator)[:_VISITED]
    return torch.cat(((mean + spread * deviation * noise).float(), visited[chosen, columns]))


def _compare_network(policy: DualActorCritic, head: str, observations: Tensor, folder: Path, report: Report) -> None:
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
            _require_small(name, difference, TOLERANCE)


def _check_sample(exported: ExportedPolicy) -> None:
    """The stored sample, by the files as they are now: the header was written again since it was compared."""
    sample = exported.metadata.sample
    observation = np.array([sample.observation], np.float32)
    actions = {POLICY: exported.action(observation)}
    if (exported.folder / HEADER).is_file():
        with CompiledHeader(exported.folder) as compiled:
            actions[HEADER] = compiled.forward(observation)
    for name, action in actions.items():
        difference = _action_difference(action[0], np.array(sample.action))
        _require_small(f"{name} on the stored sample", difference, TOLERANCE)


def _compare_header(
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
            _require_small(HEADER, difference, TOLERANCE)
    difference = check_controller(exported, run.states, run.commands)
    report.differences[f"controller of {HEADER}"] = difference
    _require_small(f"the controller of {HEADER}", difference, OBSERVATION_TOLERANCE)


# --- comparisons -----------------------------------------------------------------------------------------------------

OBSERVED = "observation.onnx and action mapping"
REWARDED = "the reward's terms by episode.onnx"


def _action_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference; of actions beyond ±1, which a robot clips, relative to their size: there float32 itself
    ends, so that PyTorch's own sum is no closer to the exact one."""
    return float((np.abs(found - expected) / np.maximum(1.0, np.abs(expected))).max())


def _require_small(what: str, difference: float, tolerance: float) -> None:
    if not difference <= tolerance:
        raise ConfigError(
            f"{what} differs from the checkpoint by {difference:.3g}, allowed is {tolerance:g}; nothing was exported"
        )


def _require_same_return(engine: str, checkpoint: Evaluation, exported: Evaluation) -> None:
    """Raise ConfigError where the mean return differs by more than chance: floating-point sums of onnxruntime and
    PyTorch differ in their last digit, and a robot in contact amplifies that."""
    difference, chance = paired_difference(exported.returns, checkpoint.returns)
    allowed = max(chance, 1e-3 * abs(checkpoint.mean))
    if not abs(difference) <= allowed:
        raise ConfigError(
            f"the exported files' return in {engine}, {exported.mean:.6g}, differs from the checkpoint's, "
            f"{checkpoint.mean:.6g}, by more than {allowed:.3g}; nothing was exported"
        )


# --- the metadata ----------------------------------------------------------------------------------------------------


def _publish(metadata: Metadata, folder: Path) -> ExportedPolicy:
    """Write the metadata inside and beside the network, and the sums; read all of it as a robot does."""
    text = metadata.to_json()
    embed_property(folder / POLICY, METADATA_KEY, text)
    (folder / METADATA).write_text(text)
    write_sums(folder)
    return ExportedPolicy(folder)


def _engines(experiment: Experiment, request: ExportRequest) -> dict[str, dict[str, Any]]:
    """Settings of the simulators to evaluate in, by name: E_high first."""
    high = experiment.high_engine
    engines = {str(high["name"]): high}
    for name in request.simulators:
        engines.setdefault(name, simulator_settings(name, experiment.settings["task"]))
    return engines


def _timing(experiment: Experiment, settings: Mapping[str, Any]) -> meta.Timing:
    dt, substeps = experiment.task.sim.dt, int(settings["simulator"]["high"]["substeps"])
    return meta.Timing(dt, dt / substeps, substeps)


def _observation_terms(
    task: Task, experiment: Experiment, settings: Mapping[str, Any], folder: Path
) -> tuple[meta.ObservationTerm, ...]:
    randomized = settings["task"].get("randomize", False)
    noise = experiment.task.randomization.observation_noise if randomized else {}
    terms = tuple(
        meta.ObservationTerm(
            name=term.name,
            dim=term.size,
            scale=float(term.scale),
            clip=float(task.config.clipObservations),
            noise=float(noise.get(term.name, 0.0)),
            history=term.history,
            frame=term.frame,
            unit=term.unit,
            sources=(),
        )
        for term in task.terms
    )
    sources = term_sources(folder / OBSERVATION, terms)
    return tuple(dataclasses.replace(term, sources=found) for term, found in zip(terms, sources, strict=True))


def _action(task: Task) -> meta.Action:
    mapping = task.action_mapping

    def per_actuator(value: float | tuple[float, ...]) -> tuple[float, ...]:
        return tuple(map(float, value)) if isinstance(value, tuple) else (float(value),) * task.num_actions

    scale, offset = per_actuator(mapping.scale), per_actuator(mapping.offset)
    return meta.Action(mapping.kind, scale, offset, float(mapping.clip), mapping.cumulative)


def _policy_info(policy: DualActorCritic, head: str, experiment: Experiment) -> meta.PolicyInfo:
    adapter = experiment.network.adapter
    return meta.PolicyInfo(
        head=head,  # type: ignore[arg-type]
        lora=meta.Lora(adapter.rank if adapter.kind == "lora" else 0, adapter.alpha, merged=head == "adapted"),
        dial=meta.Dial(DIAL_LOW, DIAL_HIGH, 1.0) if head == "dial" else None,
        normaliser_baked=True,
        obs_dim=policy.num_actor_obs,
        act_dim=policy.num_actions,
        opset=OPSET,
        dtype="float32",
    )


def _training(
    checkpoint: Path, state: Mapping[str, Any], settings: Mapping[str, Any], experiment: Experiment
) -> meta.Training:
    run = checkpoint.parent.parent
    allocator = Allocator(experiment.num_envs, experiment.allocation)
    trained_on = "low" if not allocator.max_n_high else "both" if allocator.max_n_low else "high"
    versions_file = run / "versions.json"
    return meta.Training(
        seed=experiment.seed,
        iterations=int(state["iteration"]),
        samples=int(state["samples"]),
        cost_seconds=float(state["cost_seconds"]),
        fidelity_trained_on=trained_on,  # type: ignore[arg-type]
        engines=settings["simulator"],
        versions={
            "training": json.loads(versions_file.read_text()) if versions_file.is_file() else {},
            "export": versions(),
        },
        share_history=_share_history(run / METRICS, int(state["iteration"])),
        calibration=settings["task"].get("simulators", {}),
    )


def _share_history(path: Path, iteration: int) -> tuple[float, ...]:
    """Share of low environments per iteration up to a checkpoint's, thinned; empty where the run's log is not there."""
    shares = [
        row["allocation/n_low"] / (row["allocation/n_low"] + row["allocation/n_high"])
        for row in read_metrics(path)
        if row["iteration"] <= iteration
    ]
    if not shares:
        return ()
    chosen = np.unique(np.linspace(0, len(shares) - 1, min(len(shares), _SHARES)).round().astype(int))
    return tuple(shares[i] for i in chosen)


def _visited(experiment: Experiment, visit: Visit) -> meta.Visited:
    joints = {joint.name: joint for joint in describe_joints(experiment.robot)}
    driven = [joints.get(actuator.joint) for actuator in describe_actuators(experiment.robot)]

    def bounds(values: np.ndarray, columns: list[int | None]) -> tuple[float | None, ...]:
        return tuple(None if column is None else float(values[column]) for column in columns)

    qpos = [joint.qpos if joint else None for joint in driven]
    qvel = [joint.qvel if joint else None for joint in driven]
    return meta.Visited(bounds(visit.qpos_low, qpos), bounds(visit.qpos_high, qpos), bounds(visit.qvel_largest, qvel))


def _sample(policy: DualActorCritic, head: str, visited: Tensor) -> meta.Sample:
    observation = visited[len(visited) // 2, : policy.num_actor_obs]
    action = reference_action(policy, head, observation[None])[0]
    return meta.Sample(tuple(observation.tolist()), tuple(action.tolist()))


def _verification(report: Report) -> meta.Verification:
    random, visited = report.observations
    found = report.differences
    return meta.Verification(
        onnx=found[POLICY],
        torchscript=found.get(TORCHSCRIPT),
        header=found.get(HEADER),
        observation=found.get(OBSERVED, 0.0),
        reward=found.get(REWARDED, 0.0),
        observations_random=random,
        observations_visited=visited,
    )


def _evaluation(settings: dict[str, Any], checkpoint: Evaluation, exported: Evaluation) -> meta.EvaluationRecord:
    low, high = exported.interval
    return meta.EvaluationRecord(
        simulator=settings,
        mean=exported.mean,
        low=low,
        high=high,
        checkpoint_mean=checkpoint.mean,
        returns=tuple(exported.returns.tolist()),
        lengths=tuple(exported.lengths.tolist()),
        reward=tuple(float(values.mean()) for values in exported.reward_terms.values()),
    )
