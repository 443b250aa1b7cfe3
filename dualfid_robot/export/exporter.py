"""From a checkpoint to the files of an export, each checked against the checkpoint (docs/policy_format.md)."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dualfid_robot.config.engines import simulator_settings
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.envs.foreign_task import ForeignTask
from dualfid_robot.errors import ConfigError
from dualfid_robot.evaluate.agents import policy_agent
from dualfid_robot.export.closed_loop import Visit, run_exported, visit
from dualfid_robot.export.cpp.header import write_header
from dualfid_robot.export.description import describe, evaluation_record, verification_record
from dualfid_robot.export.graphs import write_graphs
from dualfid_robot.export.networks import (
    DialLinear,
    DialNetwork,
    FixedNormalizer,
    embed_property,
    quiet,
    write_network_onnx,
    write_torchscript,
)
from dualfid_robot.export.request import ExportRequest
from dualfid_robot.export.robot_file import write_robot
from dualfid_robot.export.verification import (
    OBSERVATION_TOLERANCE,
    OBSERVED,
    RANDOM,
    REWARDED,
    TORCHSCRIPT,
    VISITED,
    Report,
    check_observations,
    check_sample,
    compare_header,
    compare_network,
    require_same_return,
    require_small,
)
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
from dualfid_robot.runs.checkpoint import load_checkpoint, saved_settings
from dualfid_robot.runs.saved_policy import policy_of


def write_export(
    checkpoint: Path, request: ExportRequest, folder: Path, say: Callable[[str], None] = lambda stage: None
) -> Report:
    """Write all files of an export into an empty folder and check them.

    Args:
        checkpoint: the file.
        say: takes a name of what begins now.

    Raises:
        ConfigError: the checkpoint is none, or what was written differs from it, in one line.
    """
    # The run and its policy. As in the nominal world, so that the starts and their returns can be had again anywhere.
    state = load_checkpoint(checkpoint)
    settings = saved_settings(state)
    replaced = simulator_settings(request.simulator, settings["task"], "simulator") if request.simulator else None
    experiment, policy = policy_of(checkpoint, state, replaced, request.sim_device, randomize=False)
    task, head = experiment.make_task(), request.policy
    if isinstance(task, ForeignTask):
        task.refuse(f"checkpoint={checkpoint}: cannot be exported")
    if head == "dial" and experiment.network.adapter.kind == "none":
        raise ConfigError(
            "policy=dial: the checkpoint's policy has no adapter (adapter.kind=none); allowed are base, adapted"
        )

    # The network, the task's functions and the robot, each as a file.
    say("the network")
    engines = _engines(experiment, request)
    network = network_of(policy, head).eval()
    write_network_onnx(network, policy.num_actor_obs, folder / POLICY)
    if "torchscript" in request.formats:
        write_torchscript(network, policy.num_actor_obs, folder / TORCHSCRIPT)
    say("the task's functions and the robot")
    if request.graphs is None:
        with quiet():
            write_graphs(task, folder)
    else:
        for name in (OBSERVATION, EPISODE):
            shutil.copyfile(request.graphs / name, folder / name)
    write_robot(experiment.robot, folder)

    # What the checkpoint's policy meets in each engine, and whether the network acts like it there.
    report = Report()
    agent = policy_agent(policy, "base" if head == "base" else "adapted")

    def visited(simulator: Mapping[str, Any]) -> Visit:
        say(f"{request.num_envs} episodes of the checkpoint in {simulator['name']}")
        return visit(experiment, simulator, request.num_envs, request.seed, agent, VISITED)

    references = {name: visited(simulator) for name, simulator in engines.items()}
    first = next(iter(references.values()))
    np.savez(folder / STARTS, **first.starts)  # type: ignore[arg-type]
    policy.cpu()
    observations = check_observations(policy, first.observations, request.seed)
    report.observations = (RANDOM, len(observations) - RANDOM)
    compare_network(policy, head, observations, folder, report)

    # The same episodes by the files alone have to give the same observations, rewards and returns.
    metadata = describe(checkpoint, state, settings, experiment, policy, head, first, folder, report)
    exported = _publish(metadata, folder)
    for name, simulator in engines.items():
        say(f"the same episodes by the files alone in {name}")
        run = run_exported(experiment, simulator, request.num_envs, request.seed, exported)
        report.evaluations[name] = references[name].evaluation, run.evaluation
        report.differences[OBSERVED] = max(run.difference, report.differences.get(OBSERVED, 0.0))
        report.differences[REWARDED] = max(run.reward_difference, report.differences.get(REWARDED, 0.0))
        require_small(f"{OBSERVED} in {name}", run.difference, OBSERVATION_TOLERANCE)
        require_small(f"{REWARDED} in {name}", run.reward_difference, OBSERVATION_TOLERANCE)
        require_same_return(name, *report.evaluations[name])
    evaluations = {name: evaluation_record(engines[name], *pair) for name, pair in report.evaluations.items()}
    metadata = dataclasses.replace(metadata, evaluations=evaluations, verification=verification_record(report))

    # The C++ header is checked with what it says of itself, and written again with what the check found.
    if "cpp" in request.formats:
        say("the C++ header, compiled and run")
        write_header(metadata, folder)
        compare_header(exported, policy, observations, run, report)
        metadata = dataclasses.replace(metadata, verification=verification_record(report))
        write_header(metadata, folder)
    check_sample(_publish(metadata, folder))
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
    layers = policy.actor.dual_layers()
    return DialNetwork([_dial(part, next(layers)) if isinstance(part, nn.Linear) else part for part in modules])


@torch.no_grad()
def _dial(linear: nn.Linear, layer: DualLinear) -> DialLinear:
    """A layer with the adapter beside the base weights. `linear` has those, without what the value alone uses."""
    rows = linear.out_features
    lora_a = None if layer.lora_a is None else layer.lora_a.clone()
    lora_b = torch.zeros_like(layer.weight) if layer.lora_b is None else layer.lora_b
    bias_delta = torch.zeros_like(layer.bias) if layer.bias_delta is None else layer.bias_delta
    return DialLinear(
        linear.weight, linear.bias, lora_a, lora_b[:rows].clone(), bias_delta[:rows].clone(), layer.scaling
    )


def _publish(metadata: Metadata, folder: Path) -> ExportedPolicy:
    """Write the metadata inside and beside the network, and the sums; read all of it as a robot does."""
    text = metadata.to_json()
    embed_property(folder / POLICY, METADATA_KEY, text)
    (folder / METADATA).write_text(text, encoding="utf-8")
    write_sums(folder)
    return ExportedPolicy(folder)


def _engines(experiment: Experiment, request: ExportRequest) -> dict[str, dict[str, Any]]:
    """Settings of the simulators to evaluate in, by name: E_high first."""
    high = experiment.high_engine
    engines = {str(high["name"]): high}
    for name in request.simulators:
        engines.setdefault(name, simulator_settings(name, experiment.settings["task"]))
    return engines
