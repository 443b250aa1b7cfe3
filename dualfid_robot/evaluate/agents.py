"""Agents: functions from observations (n, num_observations) to actions (n, num_actions), for evaluations and videos."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dualfid_robot.config.experiment import Experiment
from dualfid_robot.envs.task import Task, uniform
from dualfid_robot.policies.actor_critic import DualActorCritic, PolicyName

Agent = Callable[[Tensor], Tensor]


def policy_agent(policy: DualActorCritic, name: PolicyName | float) -> Agent:
    """The mean action of one of a network's policies (see `DualActorCritic.action_mean`). The network follows the
    observations to their device."""

    def act(observations: Tensor) -> Tensor:
        return policy.to(observations.device).action_mean(observations, name)

    return act


def policy_agents(experiment: Experiment, policy: DualActorCritic, first: PolicyName = "adapted") -> dict[str, Agent]:
    """Both policies of a network by name, one of them first; that one alone where there is no adapter."""
    second: PolicyName = "base" if first == "adapted" else "adapted"
    names = (first, second) if experiment.network.adapter.kind != "none" else (first,)
    return {name: policy_agent(policy, name) for name in names}


def zero_agent(task: Task) -> Agent:
    """An agent that does nothing: its actions are zero."""

    def act(observations: Tensor) -> Tensor:
        return torch.zeros(len(observations), task.num_actions, device=observations.device)

    return act


def random_agent(task: Task, seed: int) -> Agent:
    """An agent with independent actions, uniform within the bounds of the task's action mapping.

    It is the same on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    clip = task.action_mapping.clip

    def act(observations: Tensor) -> Tensor:
        return uniform(len(observations), task.num_actions, clip, generator).to(observations.device)

    return act
