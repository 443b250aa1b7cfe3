"""Iterations on a GPU that does not exist, up to where the host reads figures back. Run by `test_fake_gpu.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import pytest
import torch
from stand_in import GPU, Generator, StandIn, TheGpu, TransferError, put, staying_there
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorDeviceMismatchError,
)

from dualfid_robot.algorithms.dual_ppo import DualPPO
from dualfid_robot.config import experiment as module_of_experiment
from dualfid_robot.config.engines import compose_config, hydra_apart
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.envs.registry import task_names
from dualfid_robot.train import trainer as module_of_trainer
from dualfid_robot.train.trainer import Trainer


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(torch.nn.Module, "to", put)
    with TheGpu():
        yield


THERE = {
    "reads a value": (lambda x: float(x.sum()), DataDependentOutputException),
    "looks for rows": (lambda x: x.nonzero(), DynamicOutputShapeException),
    "copies to the host": (lambda x: x.cpu(), TransferError),
    "copies one value to the host": (lambda x: x.sum().cpu(), TransferError),
    "mixes devices": (lambda x: x + torch.zeros(3), FakeTensorDeviceMismatchError),
    "writes from the host": (lambda x: x.copy_(torch.zeros(3)), TransferError),
    "assigns from the host": (lambda x: x.__setitem__(slice(2), torch.zeros(2)), TransferError),
    "indexes from the host": (lambda x: x[torch.arange(2)], TransferError),
    "makes a constant": (lambda x: torch.tensor([1.0, 2.0], device=x.device), TransferError),
}


@pytest.mark.parametrize("what", THERE)
def test_what_waits_is_found(what: str) -> None:
    wait, error = THERE[what]
    there = torch.zeros(3, device=GPU)
    with staying_there():
        (2.0 * there + torch.tensor(1.0))[:2].mean()
        with pytest.raises(error):
            wait(there)


def check_step(optimizer: torch.optim.Optimizer) -> None:
    """What torch's kernel, which needs values, would be given."""
    for group in optimizer.param_groups:
        assert group["fused"] and group["lr"].device == GPU
        for parameter in group["params"]:
            assert parameter.device == parameter.grad.device == GPU


class ReadBack(Exception):
    """The iteration has come to where its figures are read."""

    def __init__(self, metrics: Mapping[str, Tensor]) -> None:
        self.metrics = metrics


@pytest.fixture
def make_trainer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trainer]:
    """A trainer whose simulators and learner are on the GPU, and whose iterations end at `read_back`."""

    def read_back(metrics: Mapping[str, Tensor]) -> dict[str, float]:
        raise ReadBack(metrics)

    def made(*settings: str) -> Trainer:
        sizes = {"horizon_length": 2, "minibatch_size": 16, "mini_epochs": 1}
        small = ("num_envs=16", "train.params.network.mlp.units=[8]")
        ppo = [f"train.params.config.{name}={size}" for name, size in sizes.items()]
        with hydra_apart():
            experiment = Experiment(compose_config([*small, *ppo, *settings]))
        experiment.sim_device = experiment.rl_device = GPU
        monkeypatch.setattr(module_of_experiment, "engine_class", lambda name: StandIn)
        monkeypatch.setattr(module_of_experiment, "make_simulator", StandIn)
        monkeypatch.setattr(module_of_trainer, "read_back", read_back)
        with monkeypatch.context() as once:
            once.setattr(DualPPO, "_rate", lambda self, value: value)  # torch's optimisers look at a rate once
            trainer = Trainer(experiment)
        for optimizer in trainer.algorithm.parts().values():
            optimizer.param_groups[0]["lr"] = torch.tensor(1e-3, device=GPU)
            monkeypatch.setattr(optimizer, "step", partial(check_step, optimizer))
        return trainer

    return made


def iterate(trainer: Trainer) -> Mapping[str, Tensor]:
    with pytest.raises(ReadBack) as reached:
        trainer.iterate()
    return reached.value.metrics


@pytest.mark.parametrize("task", ["Ant", "Anymal"])
def test_what_is_randomised_stays_on_the_gpu(task: str, make_trainer: Callable[..., Trainer]) -> None:
    """All but the search for the worlds whose episode begins, for which the pool waits."""
    pool = make_trainer(f"task={task}", "task.randomize=True").env.high
    assert pool is not None and pool.randomization is not None
    drawn, simulator, generator = pool.randomization, pool.simulator, torch.Generator(GPU)
    observed = {term.name: torch.zeros(pool.num_envs, term.size, device=GPU) for term in pool.task.terms}
    steps, actions = pool.episode_step, torch.zeros(pool.num_envs, pool.task.num_actions, device=GPU)
    with staying_there():
        drawn.begin_episode(simulator, torch.arange(pool.num_envs, device=GPU), generator)
        drawn.push(simulator, steps, generator)
        actions = drawn.disturb(actions, steps, generator)
        drawn.add_noise(observed, generator)
    for tensor in (actions, *observed.values(), *drawn.values.values()):
        assert tensor.device == GPU


ADAPTERS = [f"train.params.network.adapter.kind={kind}" for kind in ("bit", "none")]


@pytest.mark.parametrize("setting", [*(f"task={name}" for name in task_names()), *ADAPTERS])
def test_an_iteration_stays_on_the_gpu(setting: str, make_trainer: Callable[..., Trainer]) -> None:
    """Pools with their resets, policies, measurements, update and normalisers, once their constants are there."""
    trainer = make_trainer("task=Cartpole", setting)
    iterate(trainer)
    with staying_there():
        metrics = iterate(trainer)
    normalisers = (*trainer.policy.normalizer.buffers(), *trainer.policy.return_normalizer.buffers())
    for tensor in (*metrics.values(), *trainer.policy.parameters(), *normalisers, trainer.env.reward):
        assert tensor.device == GPU
