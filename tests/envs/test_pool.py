"""Pools and the dual environment: resets, truncation, frozen environments, failed worlds."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from dualfid_robot.envs.dual import DualEnvironment, capacities, hidden_seconds, rows_of_engines
from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.envs.registry import make_task
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.mujoco.simulator import MujocoSimulator
from dualfid_robot.simulators.registry import make_simulator
from dualfid_robot.tasks.cartpole import Cartpole, CartpoleConfig

DT = 1 / 60


def make_pool(robot: RobotModel, name: str, num_envs: int, seed: int = 0, episode_length: int = 500) -> EnvironmentPool:
    task = make_task(name, {"numEnvs": num_envs, "episodeLength": episode_length}, robot, DT)
    simulator = make_simulator({"engine": "mujoco", "substeps": 2}, robot, num_envs, DT, task.contact_bodies)
    return EnvironmentPool(simulator, task, seed)


def test_the_time_limit_truncates_and_keeps_the_final_observation(cartpole: RobotModel) -> None:
    pool = make_pool(cartpole, "Cartpole", 3, episode_length=4)
    for _ in range(3):
        pool.step(torch.zeros(3, 1))
        assert not pool.truncated.any()
    before = pool.observations.clone()
    pool.step(torch.zeros(3, 1))
    assert pool.truncated.all() and not pool.terminated.any()
    # a passive pole continues smoothly: one more period of the same motion, not a fresh initial state
    predicted = before[:, 0] + DT * before[:, 1]
    torch.testing.assert_close(pool.final_observations[:, 0], predicted, atol=2e-4, rtol=0)
    assert not torch.allclose(pool.observations, pool.final_observations)
    statistics = pool.take_statistics()
    assert statistics.lengths.tolist() == [4, 4, 4]
    assert statistics.env_steps == 12


def test_a_termination_is_not_a_truncation(cartpole: RobotModel) -> None:
    pool = make_pool(cartpole, "Cartpole", 2)
    pool.simulator.set_state(torch.tensor([1]), torch.tensor([[2.99, 0.0]]), torch.tensor([[5.0, 0.0]]))
    pool.step(torch.zeros(2, 1))
    assert pool.terminated.tolist() == [False, True]
    assert not pool.truncated.any()
    assert pool.reward[1] == -2.0
    assert pool.observations[1, 0].abs() <= 0.1  # a new episode has begun


def test_environments_out_of_use_are_frozen(ant: RobotModel) -> None:
    pool = make_pool(ant, "Ant", 6)
    for _ in range(3):
        pool.step(torch.rand(6, 8) * 2 - 1)
    before = copy.deepcopy(pool.state_dict())
    pool.step(torch.rand(4, 8) * 2 - 1)
    after = pool.state_dict()
    for name in ("observations", "actions", "episode_return", "episode_step"):
        assert torch.equal(before[name][4:], after[name][4:]), name
    assert torch.equal(
        torch.as_tensor(before["simulator"]["qpos"])[4:], torch.as_tensor(after["simulator"]["qpos"])[4:]
    )
    assert not torch.equal(before["observations"][:4], after["observations"][:4])


def test_a_failed_world_ends_alone_without_reward(ant: RobotModel) -> None:
    pool, twin = make_pool(ant, "Ant", 4), make_pool(ant, "Ant", 4)
    pool.simulator.set_state(torch.tensor([2]), torch.full((1, 15), torch.nan), torch.zeros(1, 14))
    actions = torch.rand(4, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    pool.step(actions)
    twin.step(actions)
    assert pool.terminated.tolist() == [False, False, True, False]
    assert pool.reward[2] == 0.0
    assert torch.isfinite(pool.observations).all()
    assert pool.take_statistics().failures == 1
    others = torch.tensor([0, 1, 3])
    assert torch.equal(pool.observations[others], twin.observations[others])


def test_observations_are_those_of_the_simulators_state(ant: RobotModel) -> None:
    pool = make_pool(ant, "Ant", 5)
    for _ in range(40):
        pool.step(torch.rand(5, 8) * 2 - 1)
    assert torch.equal(pool.observations[:, 0], pool.simulator.qpos[:, 2])


class FromTheMiddle(Cartpole):
    """Cartpole whose episodes all begin alike."""

    def sample_initial_state(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.tensor([[0.0, 0.1]]).repeat(n, 1), torch.zeros(n, 2)


class MaskingSimulator(MujocoSimulator):
    RESETS_BY_MASK = True


def test_resets_by_mask_and_by_number_agree(cartpole: RobotModel) -> None:
    task = FromTheMiddle(CartpoleConfig(8, 30), cartpole, DT, "cpu")
    by_number, by_mask = (
        EnvironmentPool(engine(engine.Config(substeps=2), cartpole, 8, DT), task, seed=0)
        for engine in (MujocoSimulator, MaskingSimulator)
    )
    generator = torch.Generator().manual_seed(0)
    for step in range(120):
        actions = 3 * torch.randn(8 if step % 3 else 5, 1, generator=generator)
        ended = torch.zeros(8, dtype=torch.bool)
        for pool in (by_number, by_mask):
            pool.step(actions)
            ended[: len(actions)] = (pool.terminated | pool.truncated)[: len(actions)]
        for name in ("observations", "reward", "terminated", "truncated"):
            assert torch.equal(getattr(by_number, name), getattr(by_mask, name)), name
        assert torch.equal(by_number.final_observations[ended], by_mask.final_observations[ended])
    first, second = by_number.take_statistics(), by_mask.take_statistics()
    assert len(first.returns) > 20
    assert first.lengths.min() < 30 and first.lengths.max() == 30  # both kinds of ends
    assert torch.equal(first.returns, second.returns) and torch.equal(first.lengths, second.lengths)
    assert len(first.step_seconds) == len(second.step_seconds) == 120


def test_a_seed_repeats_the_initial_states(cartpole: RobotModel) -> None:
    pool = make_pool(cartpole, "Cartpole", 4, seed=5)
    first = pool.observations.clone()
    pool.reset_all()
    assert not torch.equal(pool.observations, first)
    pool.seed(5)
    pool.reset_all()
    assert torch.equal(pool.observations, first)


@pytest.mark.parametrize("overlap", [False, True])
def test_the_dual_environment_is_its_two_pools(cartpole: RobotModel, overlap: bool) -> None:
    pools = make_pool(cartpole, "Cartpole", 6, seed=1), make_pool(cartpole, "Cartpole", 6, seed=2)
    alone = make_pool(cartpole, "Cartpole", 6, seed=1), make_pool(cartpole, "Cartpole", 6, seed=2)
    env = DualEnvironment(pools[:1], pools[1], num_envs=8)
    env.overlap = overlap
    observations = torch.zeros(8, 4)
    for n_low in (2, 5, 6, 3):
        env.reallocate(n_low)
        for _ in range(3):
            actions = torch.rand(8, 1) * 2 - 1
            env.step(actions)
            alone[0].step(actions[:n_low])
            alone[1].step(actions[n_low:])
            assert torch.equal(env.reward[:n_low], alone[0].reward[:n_low])
            assert torch.equal(env.reward[n_low:], alone[1].reward[: 8 - n_low])
        env.observe(observations)
        assert torch.equal(observations[:n_low], alone[0].observations[:n_low])
        assert torch.equal(observations[n_low:], alone[1].observations[: 8 - n_low])
        statistics = env.take_statistics()
        assert [part.env_steps for part in statistics] == [3 * n_low, 3 * (8 - n_low)]
        assert env.hidden_seconds(statistics) == 0.0  # one device


def test_what_overlap_hides() -> None:
    """Pools of one device step in turn, beside those of the other device: the shorter time of a step is hidden."""
    gpu, cpu = torch.device("cuda:0"), torch.device("cpu")
    assert hidden_seconds([cpu, cpu, gpu], [[1.0, 2.0], [1.0, 1.0], [3.0, 1.0]]) == 2.0 + 1.0
    assert hidden_seconds([cpu, gpu], [[], [3.0]]) == 0.0
    assert hidden_seconds([cpu, cpu], [[1.0], [2.0]]) == 0.0


@pytest.mark.parametrize("of_low", [(1.0,), (0.7, 0.3), (0.2, 0.5, 0.3), (0.001, 0.999)])
def test_rows_of_several_engines(of_low: tuple[float, ...]) -> None:
    """Whole numbers that add up, each within one of its share; capacities hold every split."""
    most = capacities(100, of_low)
    assert most == [max(rows) for rows in zip(*(rows_of_engines(n_low, of_low) for n_low in range(101)), strict=True)]
    for n_low in range(101):
        rows = rows_of_engines(n_low, of_low)
        assert sum(rows) == n_low and min(rows) >= 0
        assert all(abs(n - share * n_low) <= 1.0 for n, share in zip(rows, of_low, strict=True))
    assert rows_of_engines(10, (0.7, 0.3)) == [7, 3]


def test_the_dual_environment_is_all_its_pools(cartpole: RobotModel) -> None:
    """Three pools side by side: rows in order of the engines, each as if it were alone."""
    sizes = (4, 2, 6)
    pools, alone = ([make_pool(cartpole, "Cartpole", n, seed=n) for n in sizes] for _ in range(2))
    env = DualEnvironment(pools[:2], pools[2], 8, shares=(0.6, 0.4))
    for n_low, rows in ((5, (3, 2, 3)), (2, (1, 1, 6)), (4, (2, 2, 4))):
        env.reallocate(n_low)
        actions = torch.rand(8, 1) * 2 - 1
        env.step(actions)
        for pool, part in zip(alone, actions.split(list(rows)), strict=True):
            pool.step(part)
        expected = torch.cat([pool.reward[:n] for pool, n in zip(alone, rows, strict=True)])
        assert torch.equal(env.reward, expected)
    assert [part.env_steps for part in env.take_statistics()] == [6, 5, 13]


def test_reallocation_beyond_a_pool_is_refused(cartpole: RobotModel) -> None:
    env = DualEnvironment([make_pool(cartpole, "Cartpole", 6)], make_pool(cartpole, "Cartpole", 4), 8)
    with pytest.raises(ValueError, match="does not fit"):
        env.reallocate(3)


def test_final_observations_are_in_their_rows(cartpole: RobotModel) -> None:
    low = make_pool(cartpole, "Cartpole", 2, episode_length=2)
    high = make_pool(cartpole, "Cartpole", 3, episode_length=3)
    env = DualEnvironment([low], high, 5)
    env.reallocate(2)
    for step in (1, 2, 3):
        env.step(torch.zeros(5, 1))
        assert env.truncated.tolist() == [step == 2] * 2 + [step == 3] * 3
    assert torch.equal(env.final_observations[2:], high.final_observations)


def test_unknown_tasks_and_settings_are_refused(cartpole: RobotModel) -> None:
    with pytest.raises(ConfigError, match=r"task=Walker: allowed are \['Ant', .*'Cartpole'"):
        make_task("Walker", {}, cartpole, DT)
    with pytest.raises(ConfigError, match=r"task\.env\.gravity=1: no such setting"):
        make_task("Cartpole", {"numEnvs": 1, "episodeLength": 1, "gravity": 1}, cartpole, DT)
    with pytest.raises(ConfigError, match=r"task\.env\.episodeLength=0: must be positive"):
        make_task("Cartpole", {"numEnvs": 1, "episodeLength": 0}, cartpole, DT)
