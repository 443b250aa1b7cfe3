"""Two quadratic objectives of which everything is known: do the estimators recover it, and is E1's split the best?

    python benchmarks/two_quadratics.py

A Gaussian policy N(μ, σ²) with one mean in each fidelity gets the reward −½ ‖a − a_f‖² + s_f ν, ν standard normal,
whose optimum a_f is not the same in the two fidelities. All moments of its policy gradient have closed forms
(``Problem``).

First, every estimator of the allocation rules measures many rollouts of a real `DualActorCritic`: mean ± standard error
against the known number, and their distance in standard errors. Trainings with and without a gap compare D with the
placebo's. Then, for several biases, variances and cost ratios,
the number of low samples that `optimal_low_samples` gives is compared with a search over all numbers of the same cost,
and the error of the pooled gradient of least error with that of simulated ones.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dualfid_robot.algorithms.divergence import policy_divergence
from dualfid_robot.algorithms.dual_ppo import DualPPO
from dualfid_robot.algorithms.ppo_config import PPOConfig
from dualfid_robot.algorithms.research.bias_variance import optimal_low_samples, pooled_mse, precision_weight
from dualfid_robot.algorithms.research.gradient_moments import policy_gradient_moments
from dualfid_robot.algorithms.research.transfer_gap import transfer_gap
from dualfid_robot.algorithms.rollout import RolloutStorage
from dualfid_robot.policies.actor_critic import DualActorCritic

NO_CLIPPING = 1e9


@dataclass(frozen=True)
class Side:
    """One fidelity: its policy's mean, its optimum, the deviation of its reward's noise."""

    mean: Tensor
    optimum: Tensor
    noise: float


@dataclass(frozen=True)
class Problem:
    """Both fidelities, and what is known of them. d actions, one state, T independent steps per environment.

    With z = (a − μ) / σ and e = a_f − μ, the advantage is A = σ e·z − ½ σ² (‖z‖² − d) + s ν, and the gradient of
    A log π by μ and log σ is A z / σ and A (z² − 1); their expectations are e and −σ². By the moments of the normal
    distribution the sum of their variances is

        (d + 1) ‖e‖² + ½ σ² d (d + 4) + σ² ‖e‖² (2 d + 8) + σ⁴ d (d + 13) + s² (d / σ² + 2 d).
    """

    low: Side
    high: Side
    sigma: float
    horizon: int

    @property
    def num_actions(self) -> int:
        return self.low.mean.shape[0]

    @property
    def bias_squared(self) -> float:
        """‖E g_l − E g_h‖²; the gradients by log σ are the same."""
        return float((_pull(self.low) - _pull(self.high)).square().sum())

    @property
    def gradient_squared(self) -> float:
        return float(_pull(self.high).square().sum()) + self.num_actions * self.sigma**4

    def variance(self, side: Side) -> float:
        """Of the gradient of one environment's rollout."""
        d, e, s = self.num_actions, float(_pull(side).square().sum()), self.sigma**2
        by_mean = (d + 1) * e + 0.5 * s * d * (d + 4)
        by_log_std = s * e * (2 * d + 8) + s**2 * d * (d + 13)
        return (by_mean + by_log_std + side.noise**2 * (d / s + 2 * d)) / self.horizon

    def advantage_deviation(self, side: Side) -> float:
        """σ_A: A has the variance σ² ‖e‖² + ½ σ⁴ d + s²."""
        e = float(_pull(side).square().sum())
        return math.sqrt(self.sigma**2 * e + 0.5 * self.sigma**4 * self.num_actions + side.noise**2)

    @property
    def divergence(self) -> float:
        """½ ‖(μ_l − μ_h) / σ‖² / d, in every state."""
        return float((self.low.mean - self.high.mean).square().sum()) / (2.0 * self.sigma**2 * self.num_actions)

    @property
    def transfer_gap(self) -> float:
        """(J_h(μ_h) − J_h(μ_l)) / σ_A, which is Ĝ / σ_A where nothing is clipped."""
        loss = (self.high.optimum - self.low.mean).square().sum() - _pull(self.high).square().sum()
        return 0.5 * float(loss) / self.advantage_deviation(self.high)

    def known(self) -> dict[str, float]:
        """By the names of ``Signals``."""
        return {
            "bias_squared": self.bias_squared,
            "variance_low": self.variance(self.low),
            "variance_high": self.variance(self.high),
            "gradient_squared": self.gradient_squared,
            "transfer_gap": self.transfer_gap,
            "divergence": self.divergence,
            "divergence_high": self.divergence,
        }


def _pull(side: Side) -> Tensor:
    """e = a_f − μ."""
    return side.optimum - side.mean


def make_problem(bias: float, noise_low: float, noise_high: float, num_actions: int = 4) -> Problem:
    """A problem with ‖E g_l − E g_h‖ = bias, in which both policies are on their way to their optima."""
    ones = torch.ones(num_actions) / math.sqrt(num_actions)
    first = torch.zeros(num_actions)
    first[0] = 1.0
    low = Side(mean=0.1 * first, optimum=0.1 * first + 0.5 * ones + bias * first, noise=noise_low)
    return Problem(low, Side(0.0 * first, 0.5 * ones, noise_high), sigma=0.6, horizon=16)


def make_policy(problem: Problem) -> DualActorCritic:
    """Its two policies as one layer, of which only the biases matter: the only observation is 0."""
    d = problem.num_actions
    policy = DualActorCritic(1, d, actor_hidden=[], critic_hidden=[1], init_log_std=math.log(problem.sigma))
    with torch.no_grad():
        policy.actor.output_layer.bias.copy_(problem.low.mean)
        policy.actor.output_layer.bias_delta.copy_(problem.high.mean - problem.low.mean)
    return policy


def roll_out(
    problem: Problem, policy: DualActorCritic, n_low: int, n_high: int, generator: torch.Generator
) -> RolloutStorage:
    """A rollout with its exact advantages."""
    horizon, num_envs = problem.horizon, n_low + n_high
    storage = RolloutStorage(horizon, num_envs, 1, problem.num_actions)
    storage.begin(n_low)
    for t in range(horizon):
        actions, log_probs, _ = policy.act(storage.observations[t], n_low, generator)
        storage.actions[t], storage.log_probs[t] = actions, log_probs
    for rows, side in ((slice(0, n_low), problem.low), (slice(n_low, num_envs), problem.high)):
        distance = (storage.actions[:, rows] - side.optimum).square().sum(-1)
        expected = _pull(side).square().sum() + problem.num_actions * problem.sigma**2
        storage.advantages[:, rows] = 0.5 * (expected - distance)
        storage.advantages[:, rows] += side.noise * torch.randn(distance.shape, generator=generator)
    return storage


def measure(
    problem: Problem, repeats: int, n_low: int = 64, n_high: int = 64, seed: int = 0
) -> Iterator[dict[str, float]]:
    """What the estimators say of `repeats` rollouts, by the names of ``Signals``."""
    generator = torch.Generator().manual_seed(seed)
    policy, deviation = make_policy(problem), problem.advantage_deviation(problem.high)
    for _ in range(repeats):
        storage = roll_out(problem, policy, n_low, n_high, generator)
        moments = policy_gradient_moments(policy, storage, storage.advantages)
        others = {
            "transfer_gap": transfer_gap(policy, storage, storage.advantages / deviation, NO_CLIPPING),
            "divergence": policy_divergence(policy, storage.low_observations),
            "divergence_high": policy_divergence(policy, storage.high_observations),
        }
        assert moments is not None
        yield {name: float(value) for name, value in (moments._asdict() | others).items() if value is not None}


def mean_and_error(rows: list[dict[str, float]]) -> dict[str, tuple[float, float]]:
    """Mean and standard error of every measurement."""
    columns = {name: torch.tensor([row[name] for row in rows], dtype=torch.float64) for name in rows[0]}
    return {name: (float(x.mean()), float(x.std()) / math.sqrt(len(x))) for name, x in columns.items()}


def least_mse(moments: tuple[float, float, float], n_low: float, n_high: float) -> float:
    """Of the pooled mean with the best weight; `moments` are b², σ_l², σ_h²."""
    if n_low == 0.0:
        return moments[2] / n_high
    if n_high == 0.0:
        return moments[0] + moments[1] / n_low
    return pooled_mse(precision_weight(*moments, n_low, n_high), *moments, n_low, n_high)


def search(
    moments: tuple[float, float, float], cost_low: float, cost_high: float, budget: float, points: int = 20001
) -> tuple[float, float]:
    """The number of low samples with the least error among splits of equal cost, and that error."""
    most = budget / cost_low
    splits = [most * i / (points - 1) for i in range(points)]
    errors = [least_mse(moments, n, max(budget - cost_low * n, 0.0) / cost_high) for n in splits]
    best = min(range(points), key=errors.__getitem__)
    return splits[best], errors[best]


def pooled_error(problem: Problem, n_low: int, n_high: int, repeats: int, seed: int = 0) -> tuple[float, float]:
    """Squared error of simulated gradients, pooled with the best weight: mean and standard error."""
    generator = torch.Generator().manual_seed(seed)
    moments = (problem.bias_squared, problem.variance(problem.low), problem.variance(problem.high))
    weight = precision_weight(*moments, n_low, n_high)
    true = torch.cat((_pull(problem.high), torch.full((problem.num_actions,), -(problem.sigma**2))))
    errors = torch.empty(repeats)
    for i in range(repeats):
        low = mean_gradient(problem, problem.low, n_low, generator)
        high = mean_gradient(problem, problem.high, n_high, generator)
        errors[i] = (weight * low + (1.0 - weight) * high - true).square().sum()
    return float(errors.mean()), float(errors.std()) / math.sqrt(repeats)


def mean_gradient(problem: Problem, side: Side, num_envs: int, generator: torch.Generator) -> Tensor:
    """Mean of A ∇ log π by μ and log σ over the rollouts of so many environments, (2 d,)."""
    samples = num_envs * problem.horizon
    if samples == 0:
        return torch.zeros(2 * problem.num_actions)
    z = torch.randn(samples, problem.num_actions, generator=generator)
    advantage = problem.sigma * z @ _pull(side) - 0.5 * problem.sigma**2 * (z.square().sum(1) - problem.num_actions)
    advantage += side.noise * torch.randn(samples, generator=generator)
    return torch.cat((advantage @ z / problem.sigma, advantage @ (z.square() - 1.0))) / samples


def divergences_of_training(gap: float, seed: int, iterations: int = 40, num_envs: int = 64) -> Tensor:
    """D, the placebo's, and D of policies at their optima: means over the second half of a training that starts from
    the low optimum, with the high one `gap` away from it.

    Half of the environments are low, so that the placebo has as many samples as the adapter: without a gap the two
    divergences have the same distribution, and all of D is the optimiser's noise. With one, D approaches
    ½ ‖gap / σ‖² / d, and the placebo's stays that of noise.
    """
    generator = torch.Generator().manual_seed(seed)
    optimum = torch.full((4,), 0.25)
    apart = gap * torch.tensor([1.0, 0.0, 0.0, 0.0])
    sides = [Side(optimum, o, noise=1.0) for o in (optimum, optimum + apart)]
    problem = Problem(*sides, sigma=0.6, horizon=16)
    policy = make_policy(problem)
    config = PPOConfig(
        minibatch_size=num_envs * problem.horizon,
        learning_rate=3e-3,
        adapter_learning_rate=1e-2,
        lr_schedule="constant",
        normalize_input=False,
    )
    algorithm = DualPPO(policy, config, seed=seed, placebo=True)
    rows = []
    for iteration in range(iterations):
        storage = roll_out(problem, policy, num_envs // 2, num_envs // 2, generator)
        divergence = policy_divergence(policy, storage.low_observations)
        at_optima = (0.5 * (apart * torch.exp(-policy.log_std.detach())).square()).mean()
        metrics = algorithm.update(storage, 0.0)
        assert divergence is not None
        if iteration >= iterations // 2:
            rows.append(torch.stack((divergence, metrics["divergence/placebo"], at_optima)))
    return torch.stack(rows).mean(0)


CASES = ((0.0, 1.0, 1.0), (0.1, 1.0, 1.0), (0.3, 1.0, 1.0), (0.3, 3.0, 1.0), (1.0, 0.5, 2.0))
COST_RATIOS = (1.0, 3.0, 10.0, 100.0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=1000, help="rollouts that each estimator measures")
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)

    print(f"Estimators: mean ± standard error of {repeats} measurements on 64 + 64 environments x 16 steps")
    for seed, (bias, noise_low, noise_high) in enumerate(CASES):
        problem = make_problem(bias, noise_low, noise_high)
        print(f"\n  b = {bias}, reward noise {noise_low} low, {noise_high} high")
        print(f"    {'':18s}{'known':>10s}{'measured':>12s}{'±':>10s}{'errors away':>13s}")
        known = problem.known()
        for name, (mean, error) in mean_and_error(list(measure(problem, repeats, seed=seed))).items():
            away = abs(mean - known[name]) / error if error > 0.0 else 0.0
            print(f"    {name:18s}{known[name]:10.5f}{mean:12.5f}{error:10.5f}{away:13.1f}")

    print("\nE5's placebo: means ± standard errors of 10 trainings that start from the low optimum")
    for gap in (0.0, 0.5):
        values = torch.stack([divergences_of_training(gap, seed) for seed in range(10)])
        errors = values.std(0) / math.sqrt(len(values))
        texts = [
            f"{mean:.4f} ± {error:.4f}" for mean, error in zip(values.mean(0).tolist(), errors.tolist(), strict=True)
        ]
        print(
            f"  high optimum {gap} away: D {texts[0]}, D_placebo {texts[1]}, D of policies at their optima {texts[2]}"
        )

    print("\nE1's split of a budget of 100 high samples, and the best of 20001 splits of the same cost")
    print(f"  {'b':>4s}{'σ_l²':>8s}{'σ_h²':>8s}{'c_h/c_l':>9s}", end="")
    print(f"{'n_l*':>9s}{'n_l search':>12s}{'n_h*':>7s}{'MSE*':>10s}{'MSE search':>12s}{'of high only':>14s}", end="")
    print(f"{'simulated MSE*':>26s}")
    for bias, noise_low, noise_high in CASES:
        problem = make_problem(bias, noise_low, noise_high)
        moments = (problem.bias_squared, problem.variance(problem.low), problem.variance(problem.high))
        for seed, ratio in enumerate(COST_RATIOS, start=round(100 * bias)):
            n_low = optimal_low_samples(*moments, 1.0, ratio, 100.0 * ratio)
            n_high = 100.0 - n_low / ratio
            error = least_mse(moments, n_low, n_high)
            found, found_error = search(moments, 1.0, ratio, 100.0 * ratio)
            simulated, deviation = pooled_error(problem, round(n_low), round(n_high), 300, seed)
            print(f"  {bias:4.1f}{moments[1]:8.3f}{moments[2]:8.3f}{ratio:9.0f}", end="")
            print(f"{n_low:9.1f}{found:12.1f}{n_high:7.1f}{error:10.6f}{found_error:12.6f}", end="")
            print(f"{error / (moments[2] / 100.0):14.3f}{simulated:15.6f} ± {deviation:.6f}")


if __name__ == "__main__":
    main()
