"""An iteration of the learner on CUDA tensors that do not exist: torch computes their shapes and devices alone.

What mixes devices raises, and so does what lets the host wait for a value.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from dualfid_robot.algorithms import dual_ppo
from dualfid_robot.algorithms.divergence import policy_divergence
from dualfid_robot.algorithms.dual_ppo import DualPPO
from dualfid_robot.algorithms.ppo_config import PPOConfig
from dualfid_robot.policies.actor_critic import AdapterKind, DualActorCritic

pytestmark = pytest.mark.skipif(
    not torch.backends.cuda.is_built(), reason="this torch is not built for CUDA, which even tensors without data need"
)

N, N_LOW, T, OBS, ACTIONS = 16, 8, 4, 5, 2
CUDA = torch.device("cuda:0")


@pytest.fixture(autouse=True)
def fake() -> Iterator[None]:
    """Tensors without data."""
    with FakeTensorMode():
        yield


def test_a_mix_of_devices_and_a_look_at_a_value_raise() -> None:
    there, here = torch.zeros(3, device=CUDA), torch.zeros(3)
    with pytest.raises(RuntimeError, match="cuda:0"):
        there + here
    with pytest.raises(DataDependentOutputException):
        float(there.sum())


def put_on_gpu(module: torch.nn.Module) -> None:
    """Replace parameters and buffers: `Module.to` cannot do that to tensors without data."""
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            setattr(part, name, torch.nn.Parameter(parameter.detach().to(CUDA)))
        for name, buffer in list(part.named_buffers(recurse=False)):
            setattr(part, name, buffer.to(CUDA))


@pytest.mark.parametrize("adapter", ["lora", "bit", "none"])
def test_an_iteration_stays_on_the_gpu(adapter: AdapterKind, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = DualActorCritic(OBS, ACTIONS, actor_hidden=[8], critic_hidden=[8], adapter=adapter)
    put_on_gpu(policy)
    config = PPOConfig(horizon_length=T, minibatch_size=32, learning_rate=1e-3, mixed_precision=False)
    with monkeypatch.context() as patched:  # what looks at values once, needs a GPU that is there, or has been done
        patched.setattr(DualPPO, "_rate", lambda self, value: value)
        patched.setattr(torch, "Generator", lambda device: SimpleNamespace(manual_seed=lambda seed: None))
        patched.setattr(policy, "to", lambda device: policy)
        algorithm = DualPPO(policy, config, CUDA)
    monkeypatch.setattr(
        dual_ppo,
        "shuffled_indices",
        lambda horizon, n, rows, generator: torch.zeros(horizon * len(rows), dtype=torch.int64, device=CUDA),
    )
    for part in algorithm.parts().values():
        part.param_groups[0]["lr"] = torch.tensor(1e-3, device=CUDA)
        monkeypatch.setattr(part, "step", lambda: None)  # its kernel takes none without data
    storage = algorithm.make_storage(N)
    observations = torch.zeros(N, OBS, device=CUDA)
    ended = torch.zeros(N, dtype=torch.bool, device=CUDA)
    storage.begin(N_LOW)
    with policy.frozen_weights():
        for _ in range(T):
            actions, log_probs, values = policy.act(observations, N_LOW)
            rewards = actions.square().sum(1)
            storage.add(observations, actions, log_probs, values, rewards, ended, ended, observations)
    algorithm.compute_returns(storage, observations)
    divergence = policy_divergence(policy, storage.low_observations.flatten(0, 1))
    metrics = algorithm.update(storage, 0.0)
    assert divergence is not None
    for result in (divergence, storage.advantages, policy.normalizer.mean, *metrics.values(), *policy.parameters()):
        assert result.device == CUDA
