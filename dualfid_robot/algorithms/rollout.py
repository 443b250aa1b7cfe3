"""Storage of one rollout of both fidelities, and generalised advantage estimation."""

from __future__ import annotations

import torch
from torch import Tensor


def strided_samples(horizon: int, rows: int, most: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Steps and rows of at most so many samples, evenly strided over all T · rows ≥ 1 of them."""
    total = horizon * rows
    chosen = torch.arange(0, total, -(-total // most), device=device)
    return chosen // rows, chosen % rows


class RolloutStorage:
    """One iteration's transitions, preallocated (T, N, ·): rows [0, n_low) low and [n_low, N) high at every step.

    Values and rewards are in environment units (values: returns of the scaled reward). ``observations[t]`` is what the
    policy saw before ``actions[t]``; ``rewards[t]``, ``terminated[t]`` and ``truncated[t]`` are what followed.
    ``noise[t]`` is what the actions differ by from their means, in units of σ.

    Args:
        horizon: T, steps per iteration.
        num_envs: N, both fidelities together.
        num_obs, num_actions: sizes of an observation and an action.
        device: of all tensors.
    """

    def __init__(
        self, horizon: int, num_envs: int, num_obs: int, num_actions: int, device: torch.device | str = "cpu"
    ) -> None:
        self.horizon, self.num_envs = horizon, num_envs
        self.n_low = num_envs
        self.step = 0
        shape = (horizon, num_envs)
        self.observations = torch.zeros(*shape, num_obs, device=device)
        self.actions = torch.zeros(*shape, num_actions, device=device)
        self.noise = torch.zeros(*shape, num_actions, device=device)
        self.log_probs = torch.zeros(shape, device=device)
        self.values = torch.zeros(shape, device=device)
        self.rewards = torch.zeros(shape, device=device)
        self.terminated = torch.zeros(shape, dtype=torch.bool, device=device)
        self.truncated = torch.zeros(shape, dtype=torch.bool, device=device)
        self.final_observations = torch.zeros(*shape, num_obs, device=device)
        self.final_values = torch.zeros(shape, device=device)
        self.returns = torch.zeros(shape, device=device)
        self.advantages = torch.zeros(shape, device=device)

    def begin(self, n_low: int) -> None:
        """Start a new rollout with ``n_low`` low rows."""
        if not 0 <= n_low <= self.num_envs:
            raise ValueError(f"n_low = {n_low}: must be in [0, {self.num_envs}]")
        self.n_low = n_low
        self.step = 0

    def add(
        self,
        observations: Tensor,
        actions: Tensor,
        noise: Tensor,
        log_probs: Tensor,
        values: Tensor,
        rewards: Tensor,
        terminated: Tensor,
        truncated: Tensor,
        final_observations: Tensor,
    ) -> None:
        """Store one step of all rows, each (N, ·).

        ``final_observations`` are those from before the automatic reset. Only truncated rows are read.
        """
        if self.step == self.horizon:
            raise RuntimeError(f"the storage already holds {self.horizon} steps; call begin() first")
        t = self.step
        self.observations[t] = observations
        self.actions[t] = actions
        self.noise[t] = noise
        self.log_probs[t] = log_probs
        self.values[t] = values
        self.rewards[t] = rewards
        self.terminated[t] = terminated
        self.truncated[t] = truncated
        self.final_observations[t] = final_observations
        self.step += 1

    @property
    def low_observations(self) -> Tensor:
        """View (T, n_low, num_obs) of the observations visited in the low fidelity."""
        return self.observations[:, : self.n_low]

    @property
    def high_observations(self) -> Tensor:
        """View (T, n_high, num_obs) of the observations visited in the high fidelity."""
        return self.observations[:, self.n_low :]

    def truncated_rows(self) -> tuple[Tensor, Tensor, int]:
        """Steps and rows of all truncations, low rows first, and the number of those that are low.

        For setting ``final_values`` with one batched pass of the critic.
        """
        low_steps, low_rows = self.truncated[:, : self.n_low].nonzero(as_tuple=True)
        high_steps, high_rows = self.truncated[:, self.n_low :].nonzero(as_tuple=True)
        return torch.cat((low_steps, high_steps)), torch.cat((low_rows, high_rows + self.n_low)), low_rows.shape[0]

    def all_final_observations(self) -> tuple[Tensor, int]:
        """`final_observations` of all rows, (T · N, num_obs), and the number of low ones.

        The low rows of all steps come first, then the high rows.
        """
        low, high = self.final_observations.split((self.n_low, self.num_envs - self.n_low), dim=1)
        return torch.cat((low.flatten(0, 1), high.flatten(0, 1))), self.horizon * self.n_low

    def set_final_values(self, values: Tensor) -> None:
        """Set ``final_values`` of all rows from values (T · N,) in the order of ``all_final_observations``."""
        low, high = values.split((self.horizon * self.n_low, self.horizon * (self.num_envs - self.n_low)))
        self.final_values[:, : self.n_low] = low.view(self.horizon, -1)
        self.final_values[:, self.n_low :] = high.view(self.horizon, -1)

    def compute_returns(
        self,
        last_values: Tensor,
        gamma: float,
        lam: float,
        reward_scale: float = 1.0,
        value_bootstrap: bool = True,
    ) -> None:
        """Fill ``advantages`` and ``returns`` by GAE(γ, λ) (Schulman et al., arXiv 1506.02438):

            δ_t = r_t + γ V'_t − V(s_t),    A_t = δ_t + γ λ (1 − done_t) A_{t+1},    return_t = A_t + V(s_t)

        There V'_t is 0 after a termination, ``final_values`` after a truncation, and V(s_{t+1}) otherwise. A truncated
        episode would have gone on from its final observation. The next stored one belongs to another episode.

        Args:
            last_values: V(s_T) of the observations after the last step, (N,).
            gamma, lam: discount and λ.
            reward_scale: factor on the rewards.
            value_bootstrap: if False, a truncation counts as a termination.
        """
        next_values = torch.cat((self.values[1:], last_values.unsqueeze(0)))
        next_values = torch.where(self.truncated, self.final_values, next_values)
        ended = self.terminated if value_bootstrap else self.terminated | self.truncated
        next_values.masked_fill_(ended, 0.0)
        delta = self.rewards * reward_scale + gamma * next_values - self.values
        decay = gamma * lam * (~(self.terminated | self.truncated)).float()
        advantage = torch.zeros_like(last_values)
        for t in reversed(range(self.horizon)):
            advantage = torch.addcmul(delta[t], decay[t], advantage, out=self.advantages[t])
        torch.add(self.advantages, self.values, out=self.returns)
