"""What the metadata of an export say of the run, the policy and the robot."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

import dualfid_robot
from dualfid_robot.algorithms.allocation import Allocator
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.envs.task import Task
from dualfid_robot.errors import as_written
from dualfid_robot.evaluate.evaluation import Evaluation
from dualfid_robot.export.closed_loop import Visit
from dualfid_robot.export.cpp.header import HEADER
from dualfid_robot.export.networks import DIAL_HIGH, DIAL_LOW, OPSET
from dualfid_robot.export.robot_description import describe_actuators, describe_joints, describe_robot
from dualfid_robot.export.robot_file import ROBOT
from dualfid_robot.export.sources import term_sources
from dualfid_robot.export.verification import OBSERVED, REWARDED, TORCHSCRIPT, Report, reference_action
from dualfid_robot.onboard import metadata as meta
from dualfid_robot.onboard.metadata import Metadata
from dualfid_robot.onboard.runtime import OBSERVATION, POLICY
from dualfid_robot.policies.actor_critic import DualActorCritic
from dualfid_robot.runs.metrics import METRICS, read_metrics
from dualfid_robot.runs.run_log import versions

_SHARES = 200  # points of the share's history


def describe(
    checkpoint: Path,
    state: Mapping[str, Any],
    settings: Mapping[str, Any],
    experiment: Experiment,
    policy: DualActorCritic,
    head: str,
    first: Visit,
    folder: Path,
    report: Report,
) -> Metadata:
    """The metadata, still without evaluations.

    Args:
        checkpoint, state, settings: the file, what is in it, and the run's settings.
        experiment, policy, head: what it was loaded into, and which policy of it is exported.
        first: what the policy saw in E_high.
        folder: where the task's graphs are.
        report: what the checks of the network found.
    """
    task = experiment.make_task()
    return Metadata(
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
        verification=verification_record(report),
    )


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
    with as_written(versions_file):
        of_training = json.loads(versions_file.read_text(encoding="utf-8")) if versions_file.is_file() else {}
    return meta.Training(
        seed=experiment.seed,
        iterations=int(state["iteration"]),
        samples=int(state["samples"]),
        cost_seconds=float(state["cost_seconds"]),
        fidelity_trained_on=trained_on,  # type: ignore[arg-type]
        engines=settings["simulator"],
        versions={
            "training": of_training,
            "export": versions(),
        },
        share_history=_share_history(run / METRICS, int(state["iteration"])),
        calibration=settings["task"].get("simulators", {}),
    )


def _share_history(path: Path, iteration: int) -> tuple[float, ...]:
    """Share of low environments per iteration up to a checkpoint's, thinned; empty where the run's log is not there."""
    with as_written(path):
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


def verification_record(report: Report) -> meta.Verification:
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


def evaluation_record(settings: dict[str, Any], checkpoint: Evaluation, exported: Evaluation) -> meta.EvaluationRecord:
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
