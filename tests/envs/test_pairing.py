"""Environments that go on from another pool's states, and the pairs of the dual environment."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import toys
from torch import Tensor

from dualfid_robot.envs.dual import DualEnvironment
from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.envs.registry import make_task
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.registry import make_simulator

DT = 1 / 60
FULL = {"engine": "mujoco", "substeps": 4, "threads": 1}
REDUCED = {"engine": "mujoco", "substeps": 2, "integrator": "implicitfast", "cone": "pyramidal", "contacts": "feet"}
PYBULLET = {"engine": "pybullet", "workers": 1}


def ant_pool(robot: RobotModel, simulator: dict[str, object], num_envs: int, seed: int = 0) -> EnvironmentPool:
    task = make_task("Ant", {"numEnvs": num_envs, "episodeLength": 1000}, robot, DT)
    return EnvironmentPool(make_simulator(simulator, robot, num_envs, DT, task.contact_bodies), task, seed)


def ant_actions(num_envs: int, seed: int) -> Tensor:
    return torch.rand(num_envs, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture
def walked(ant: RobotModel) -> Iterator[EnvironmentPool]:
    """Five Ants at full fidelity, in contact with the ground and at different times of their episodes."""
    pool = ant_pool(ant, FULL, 5)
    for step in range(40):
        pool.step(ant_actions(5 - step // 15, step))
    yield pool
    pool.simulator.close()


@pytest.mark.parametrize("simulator", [FULL, REDUCED, PYBULLET], ids=["same", "reduced", "pybullet"])
def test_an_environment_takes_another_pools_state(
    walked: EnvironmentPool, ant: RobotModel, simulator: dict[str, object]
) -> None:
    if simulator is PYBULLET:
        pytest.importorskip("pybullet")
    pool = ant_pool(ant, simulator, 8, seed=1)
    untouched = pool.observations[6:].clone()
    rows = torch.tensor([3, 0, 1, 2, 4, 0])
    pool.adopt(walked, rows)
    torch.testing.assert_close(pool.simulator.qpos[:6], walked.simulator.qpos[rows], atol=1e-6, rtol=0)
    torch.testing.assert_close(pool.simulator.qvel[:6], walked.simulator.qvel[rows], atol=1e-6, rtol=0)
    assert torch.equal(pool.observations[:6], walked.observations[rows])
    assert torch.equal(pool.observations[6:], untouched)
    assert torch.equal(pool.episode_step[:6], walked.episode_step[rows]) and len(set(pool.episode_step.tolist())) > 2
    for _ in range(2):  # the physics really is there: engines agree on where a short time leads
        actions = ant_actions(5, 99)
        walked.step(actions)
        pool.step(actions[rows])
        torch.testing.assert_close(pool.observations[:6, 0], walked.observations[rows, 0], atol=0.02, rtol=0)
    statistics = pool.take_statistics()
    assert 0.0 < statistics.adoption_seconds < statistics.seconds
    assert len(statistics.step_seconds) == 2 and pool.take_statistics().adoption_seconds == 0.0
    pool.simulator.close()


def test_pools_that_took_the_same_states_go_on_alike_to_the_bit(walked: EnvironmentPool, ant: RobotModel) -> None:
    pools = [ant_pool(ant, FULL, 5, seed) for seed in (1, 2)]
    pools[1].step(ant_actions(5, 0))  # a past of its own
    for pool in pools:
        pool.adopt(walked, torch.arange(5))
    for step in range(20):
        for pool in pools:
            pool.step(ant_actions(5, step))
        assert torch.equal(pools[0].observations, pools[1].observations)
        assert torch.equal(pools[0].reward, pools[1].reward)
        assert not pools[0].terminated.any()


def test_histories_memory_and_controls_are_taken_over(cartpole: RobotModel) -> None:
    """A task whose controls add up, whose observations look back and whose worlds carry a level."""
    source, pool = (toys.make_pool(cartpole, 3, seed=seed, clip=50.0) for seed in (1, 2))
    source.memory["level"][:, 0] = torch.tensor([2.0, 0.0, 1.0])
    for step in range(6):
        source.step(torch.full((3 if step % 3 else 2, 1), 0.1 * (step % 3)))
    assert source.episode_step.tolist() == [6, 6, 4]
    source.take_statistics()
    pool.adopt(source, torch.arange(3))
    for name, values in source.memory.items():
        assert torch.equal(pool.memory[name], values), name
    pool._generator.set_state(source._generator.get_state())  # the task draws commands
    for _ in range(20):
        source.step(torch.full((3, 1), 0.5))
        pool.step(torch.full((3, 1), 0.5))
        torch.testing.assert_close(pool.observations, source.observations, atol=1e-4, rtol=0)
        assert torch.equal(pool.reward, source.reward) and torch.equal(pool.truncated, source.truncated)
    assert torch.equal(pool.take_statistics().returns, source.take_statistics().returns)


def test_partners_repeat_a_high_rollout_to_the_bit_until_an_episode_ends(cartpole: RobotModel) -> None:
    """Where the low simulator is the high one. Fresh episodes, whose states float32 holds exactly."""
    low, high = (toys.make_pool(cartpole, size, seed=seed) for size, seed in ((8, 1), (3, 2)))
    env = DualEnvironment([low], high, num_envs=11)
    env.reallocate(8)
    env.pair(torch.Generator())
    observations = torch.zeros(11, low.task.num_observations)
    together = torch.ones(3, dtype=torch.bool)
    lengths = torch.zeros(3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        actions = torch.randn(11, 1, generator=generator)
        actions[:3] = actions[8:]
        env.step(actions)
        env.observe(observations)
        # the command and what is rewarded by it are drawn by each pool for itself
        own = [column for column in range(observations.shape[1]) if column not in COMMAND_COLUMNS]
        ended = (env.terminated | env.truncated)[8:]
        assert torch.equal(ended[together], (env.terminated | env.truncated)[:3][together])
        together &= ~ended
        lengths += together
        assert torch.equal(observations[:3][together][:, own], observations[8:][together][:, own])
        assert not torch.equal(observations[3:6][:, own], observations[8:][:, own])  # the free rows' noise is their own
    assert lengths.min() >= 3 and not together.any()


COMMAND_COLUMNS = (6, 7)  # of toys.Chase's observation


def test_every_high_state_is_taken_equally_often(cartpole: RobotModel) -> None:
    low, high = (toys.make_pool(cartpole, size, task=toys.Chase, seed=seed) for size, seed in ((13, 1), (4, 2)))
    for _ in range(8):
        high.step(torch.full((4, 1), 0.3) * torch.arange(4)[:, None])
    env = DualEnvironment([low], high, num_envs=17)
    env.reallocate(13)
    generator = torch.Generator().manual_seed(3)
    once_more = torch.zeros(4)
    for _ in range(200):
        env.pair(generator)
        distance = (low.observations[:, None] - high.observations[None]).abs().amax(2)
        taken = distance.argmin(1)
        assert (distance.amin(1) == 0.0).all()
        assert torch.equal(taken[:4], torch.arange(4))
        counts = taken.bincount(minlength=4)
        assert sorted(counts.tolist()) == [3, 3, 3, 4]
        once_more += counts - 3
    assert once_more.min() > 200 / 4 - 4 * (200 * 3 / 16) ** 0.5  # four deviations of a fair draw
