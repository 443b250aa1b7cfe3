"""Rewards as named terms: helpers by hand, and what a pool makes of them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor
from toys import Chase, MaskingRecorder, Recorder, make_pool

from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.envs.reward import StepMeans, add_up, not_negative, replaced_where
from dualfid_robot.envs.task import State
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel


class Paid(Chase):
    """Chase with a reward of three terms, one of them constant."""

    def reward(
        self, previous_qpos: Tensor, state: State, observed: Mapping[str, Tensor], terminated: Tensor
    ) -> dict[str, Tensor]:
        return {
            "place": state.qpos[:, 0],
            "action": -state.action.square().sum(1),
            "alive": torch.full_like(state.qpos[:, 0], 0.25),
        }


class Failing(Recorder):
    """World 1 is lost in every step, as numbers that are none."""

    def finish_step(self) -> None:
        super().finish_step()
        self.failed[1] = True
        self.qpos[1] = torch.nan


def test_a_sum_goes_from_the_first_term_to_the_last() -> None:
    terms = [torch.tensor([value]) for value in (1.0, 1e8, -1e8)]
    assert add_up(terms).item() == 0.0 and add_up(reversed(terms)).item() == 1.0


def test_terms_that_are_never_negative_together() -> None:
    gain, cost = torch.tensor([1.0, 0.1, 0.3]), torch.tensor([-0.25, -0.7, -0.3])
    terms = not_negative({"gain": gain, "cost": cost})
    assert list(terms) == ["gain", "cost", "clipped"]
    assert terms["clipped"][0] == 0.0 and terms["clipped"][1].item() == pytest.approx(0.6)
    assert torch.equal(add_up(terms.values()), (gain + cost).clamp(min=0.0))


def test_one_term_in_place_of_all() -> None:
    mask = torch.tensor([True, False])
    terms = replaced_where(mask, {"a": torch.tensor([torch.nan, 2.0]), "b": torch.tensor([1.0, 3.0])}, "end", -4.0)
    assert {name: values.tolist() for name, values in terms.items()} == {
        "a": [0.0, 2.0],
        "b": [0.0, 3.0],
        "end": [-4.0, 0.0],
    }


def test_means_over_steps_of_any_number_of_environments() -> None:
    means = StepMeans("task=Any: reward")
    assert means.take(0) == {}
    means.add(["a", "b"], torch.tensor([[1.0, 3.0], [10.0, 20.0]]))
    means.add(["a", "b"], torch.tensor([[8.0], [0.0]]))
    assert means.take(3) == {"a": 4.0, "b": 10.0}
    means.add(["a", "b"], torch.tensor([[1.0], [2.0]]))
    assert means.take(1) == {"a": 1.0, "b": 2.0}
    with pytest.raises(ConfigError, match=r"task=Any: reward gives \['b', 'a'\], and before \['a', 'b'\]"):
        means.add(["b", "a"], torch.zeros(2, 1))
    with pytest.raises(ConfigError, match="a name holds no /"):
        StepMeans("task=Any: reward").add(["a/b"], torch.zeros(1, 1))


@pytest.mark.parametrize("engine", [Recorder, MaskingRecorder])
def test_a_pools_terms_add_up_to_its_reward(cartpole: RobotModel, engine: type[Recorder]) -> None:
    pool = make_pool(cartpole, 5, engine, Paid)
    generator, paid, sums = torch.Generator().manual_seed(0), [], dict.fromkeys(("place", "action", "alive"), 0.0)
    for step in range(40):
        n = 5 - step % 3
        pool.step(2.0 * torch.randn(n, 1, generator=generator))
        assert torch.equal(add_up(pool.reward_terms.values()), pool.reward[:n])
        paid.append(pool.reward[:n].double())
        for name, values in pool.reward_terms.items():
            sums[name] += float(values.double().sum())
    statistics = pool.take_statistics()
    assert statistics.reward_terms == pytest.approx({k: v / statistics.env_steps for k, v in sums.items()}, rel=1e-12)
    assert statistics.reward_terms["alive"] == 0.25 and statistics.reward_terms["action"] < 0.0
    assert sum(statistics.reward_terms.values()) == pytest.approx(float(torch.cat(paid).mean()), rel=1e-6)
    assert pool.take_statistics().reward_terms == {}


def test_the_rewards_factor_is_on_each_term(cartpole: RobotModel) -> None:
    pool = make_pool(cartpole, 3, task=Paid)
    scaled = EnvironmentPool(pool.simulator, pool.task, 0, reward_factor=-2.0)
    scaled.step(torch.full((3, 1), 0.5))
    assert scaled.reward_terms["alive"].tolist() == [-0.5] * 3
    torch.testing.assert_close(add_up(scaled.reward_terms.values()), scaled.reward)
    assert scaled.take_statistics().reward_terms["alive"] == -0.5


def test_a_lost_world_is_paid_nothing(cartpole: RobotModel) -> None:
    pool = make_pool(cartpole, 3, Failing, Paid)
    pool.step(torch.zeros(3, 1))
    assert {float(values[1]) for values in pool.reward_terms.values()} == {0.0} and pool.reward[1] == 0.0
    assert pool.take_statistics().reward_terms["alive"] == pytest.approx(0.25 * 2 / 3)


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (lambda n: torch.zeros(n), "task=Odd: reward gives Tensor; a dictionary of terms is expected"),
        (lambda n: {}, "task=Odd: reward gives dict; a dictionary of terms is expected"),
        (
            lambda n: {"a": torch.zeros(n, 1)},
            r"task=Odd: a of reward has shape \(3, 1\) for 3 worlds; \(3,\) is expect",
        ),
        (lambda n: {"a": torch.tensor(1.0)}, r"task=Odd: a of reward has shape \(\) for 3 worlds; \(3,\) is expected"),
    ],
)
def test_a_reward_that_is_no_dictionary_of_terms(cartpole: RobotModel, reward: object, message: str) -> None:
    class Odd(Chase):
        def reward(
            self, previous_qpos: Tensor, state: State, observed: Mapping[str, Tensor], terminated: Tensor
        ) -> dict[str, Tensor]:
            return reward(len(state.qpos))  # type: ignore[operator, no-any-return]

    pool = make_pool(cartpole, 3, task=Odd)
    with pytest.raises(ConfigError, match=message):
        pool.step(torch.zeros(3, 1))
