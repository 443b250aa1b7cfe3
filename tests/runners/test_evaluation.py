"""Evaluation: every environment's first episode counts once; intervals; videos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import imageio.v2 as imageio
import mujoco
import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.runners.evaluation import Evaluation, evaluate, record_video
from dualfid_robot.runners.experiment import Experiment


@pytest.fixture
def experiment(compose_config: Callable[..., DictConfig]) -> Experiment:
    return Experiment(compose_config("task=Cartpole", "task.env.episodeLength=60"))


def make_pool(experiment: Experiment, num_envs: int) -> EnvironmentPool:
    return experiment.make_pool(experiment.settings["simulator"]["high"], num_envs, seed=3)


def test_interval_is_students() -> None:
    evaluation = Evaluation(np.array([1.0, 2.0, 3.0, 4.0]), np.ones(4), 0, {}, {})
    # t(0.975, 3) = 3.18245, sample deviation 1.290994, root of 4
    low, high = evaluation.interval
    assert evaluation.mean == 2.5
    assert high - 2.5 == pytest.approx(3.18245 * 1.290994 / 2, rel=1e-5)
    assert 2.5 - low == pytest.approx(high - 2.5)


def test_first_episodes_count_once(experiment: Experiment) -> None:
    """Returns and lengths against MuJoCo itself, stepped one world at a time with the same deterministic policy."""
    policy = experiment.make_policy()
    with torch.no_grad():
        policy.actor.output_layer.bias.fill_(0.03)  # a constant push ends some episodes early
    pool = make_pool(experiment, 6)
    result = evaluate(policy, pool, "adapted")

    twin = make_pool(experiment, 6)
    twin.reset_all()  # evaluate resets too, so the second draw of initial states is the one that counts
    model = experiment.robot.compile(experiment.task.sim.dt / 8)
    expected_returns, expected_lengths = [], []
    for world in range(6):
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:] = twin.simulator.qpos[world].numpy(), twin.simulator.qvel[world].numpy()
        total = steps = 0
        ended = False
        while not ended and steps < 60:
            observation = [data.qpos[0], data.qvel[0], data.qpos[1], data.qvel[1]]
            observed = torch.tensor([observation], dtype=torch.float32).clamp(-5, 5)
            data.ctrl[:] = policy.action_mean(observed, "adapted").clamp(-1, 1).numpy()[0]
            mujoco.mj_step(model, data, 8)
            ended = abs(data.qpos[1]) > np.pi / 2 or abs(data.qpos[0]) > 3.0
            alive = 1 - data.qpos[1] ** 2 - 0.01 * abs(data.qvel[0]) - 0.005 * abs(data.qvel[1])
            total += -2.0 if ended else alive
            steps += 1
        expected_returns.append(total)
        expected_lengths.append(steps)
    assert min(expected_lengths) < 60
    np.testing.assert_array_equal(result.lengths, expected_lengths)
    np.testing.assert_allclose(result.returns, expected_returns, atol=2e-3)


def test_a_video_shows_the_episode(experiment: Experiment, tmp_path: Path) -> None:
    try:
        mujoco.Renderer(experiment.robot.model, 32, 32).close()
    except (RuntimeError, AttributeError, ImportError, mujoco.FatalError) as error:
        pytest.skip(f"no OpenGL: {error}")
    policy = experiment.make_policy()
    record_video(policy, make_pool(experiment, 1), "base", tmp_path / "video.mp4")
    with imageio.get_reader(tmp_path / "video.mp4") as video:
        frames = [frame.astype(int) for frame in video]
    assert len(frames) >= 10 and frames[0].shape == (480, 640, 3)
    assert np.abs(frames[0] - frames[-1]).max() > 50  # something moved
