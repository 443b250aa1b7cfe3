"""Evaluation: every environment's first episode counts once; intervals; videos."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import imageio.v2 as imageio
import mujoco
import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from dualfid_robot.config.experiment import Experiment, plain
from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.evaluate import launch
from dualfid_robot.evaluate.agents import policy_agent, policy_agents, random_agent, zero_agent
from dualfid_robot.evaluate.environment_show import EnvironmentShow
from dualfid_robot.evaluate.evaluation import Evaluation, evaluate, record_video
from dualfid_robot.view.page import BrowserPage
from dualfid_robot.view.playback import Playback


@pytest.fixture
def experiment(compose_config: Callable[..., DictConfig]) -> Experiment:
    return Experiment(compose_config("task=Cartpole", "task.env.episodeLength=60"))


def make_pool(experiment: Experiment, num_envs: int) -> EnvironmentPool:
    return experiment.make_pool(experiment.high_engine, num_envs, seed=3)


def test_interval_is_students() -> None:
    evaluation = Evaluation(np.array([1.0, 2.0, 3.0, 4.0]), np.ones(4), np.ones(4, dtype=bool), 0, {}, {})
    # t(0.975, 3) = 3.18245, sample deviation 1.290994, root of 4
    low, high = evaluation.interval
    assert evaluation.mean == 2.5
    assert high - 2.5 == pytest.approx(3.18245 * 1.290994 / 2, rel=1e-5)
    assert 2.5 - low == pytest.approx(high - 2.5)


def test_large_returns_are_written_out() -> None:
    """t(0.975, 1) = 12.7062, and the mean's deviation is 10."""
    evaluation = Evaluation(np.array([12_340.0, 12_360.0]), np.ones(2), np.zeros(2, dtype=bool), 0, {}, {})
    assert evaluation.line().startswith("return 12350 (95% interval 12220 to 12480, median 12350), ")


def test_first_episodes_count_once(experiment: Experiment) -> None:
    """Returns and lengths against MuJoCo itself, stepped one world at a time with the same deterministic policy."""
    policy = experiment.make_policy()
    with torch.no_grad():
        policy.actor.output_layer.bias.fill_(0.03)  # a constant push ends some episodes early
    pool = make_pool(experiment, 6)
    result = evaluate(policy_agent(policy, "adapted"), pool)

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
    np.testing.assert_array_equal(result.terminated, np.array(expected_lengths) < 60)
    np.testing.assert_allclose(result.returns, expected_returns, atol=2e-3)


def test_the_zero_agent_lets_the_pole_fall_as_mujoco_does(experiment: Experiment) -> None:
    pool = make_pool(experiment, 4)
    result = evaluate(zero_agent(pool.task), pool)
    twin = make_pool(experiment, 4)
    twin.reset_all()
    model = experiment.robot.compile(experiment.task.sim.dt / 8)
    for world in range(4):
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:] = twin.simulator.qpos[world].numpy(), twin.simulator.qvel[world].numpy()
        for _ in range(int(result.lengths[world])):
            mujoco.mj_step(model, data, 8)
        ended = abs(data.qpos[1]) > np.pi / 2 or abs(data.qpos[0]) > 3.0
        assert ended == result.terminated[world]
        assert result.lengths[world] == 60 or ended


def test_the_random_agent_is_uniform_and_repeats_itself(experiment: Experiment) -> None:
    task = experiment.make_task()
    observations = torch.zeros(20_000, 4)
    actions = random_agent(task, 5)(observations)
    assert actions.shape == (20_000, 1) and actions.abs().max() <= 1.0
    # uniform in [-1, 1]: mean 0 and variance 1/3, each within five standard errors
    assert abs(float(actions.mean())) < 5 * (1 / 3 / 20_000) ** 0.5
    assert abs(float(actions.square().mean()) - 1 / 3) < 5 * (4 / 45 / 20_000) ** 0.5
    agent = random_agent(task, 5)
    assert torch.equal(agent(observations), actions)
    assert not torch.equal(agent(observations), actions)


def test_figures_of_merit_are_means_over_the_episode_and_its_last_values(experiment: Experiment) -> None:
    """One that counts steps: 1 to L over an episode of L steps."""
    pool = make_pool(experiment, 6)
    pool.task.measure = lambda state, observed: {"age": state.step.float()}  # type: ignore[method-assign]
    result = evaluate(random_agent(pool.task, 0), pool)
    np.testing.assert_allclose(result.measures["age"], (result.lengths + 1) / 2, rtol=1e-6)
    np.testing.assert_array_equal(result.final_measures["age"], result.lengths)
    assert result.summary()["final_age"] == pytest.approx(result.lengths.mean())
    assert f"; age {result.measures['age'].mean():.3g}, at the end {result.lengths.mean():.3g}" in result.line()


def test_a_video_shows_the_episode(experiment: Experiment, tmp_path: Path) -> None:
    try:
        mujoco.Renderer(experiment.robot.model, 32, 32).close()
    except (RuntimeError, AttributeError, ImportError, mujoco.FatalError) as error:
        pytest.skip(f"no OpenGL: {error}")
    policy = experiment.make_policy()
    record_video(policy_agent(policy, "base"), make_pool(experiment, 1), tmp_path / "video.mp4")
    with imageio.get_reader(tmp_path / "video.mp4") as video:
        frames = [frame.astype(int) for frame in video]
    assert len(frames) >= 10 and frames[0].shape == (480, 640, 3)
    assert np.abs(frames[0] - frames[-1]).max() > 50  # something moved
    few = tmp_path / "few.gif"
    record_video(policy_agent(policy, "base"), make_pool(experiment, 3), few, size=(96, 64), steps=8)
    with imageio.get_reader(few) as video:
        shapes = [frame.shape[:2] for frame in video]
    assert shapes == [(64, 96)] * 4  # 8 steps of 1/60 s at 30 frames a second


@pytest.mark.slow
def test_train_with_test_is_evaluate(
    run_script: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """From one checkpoint they print the same line and report the same figures. Another seed gives other ones."""
    small = ("task=Cartpole", "simulator/low=mujoco_reduced", "num_envs=20", "max_iterations=1", "experiment=short")
    trained = run_script("train.py", *small, "task.env.episodeLength=40")
    assert trained.returncode == 0, trained.stderr
    (checkpoint,) = tmp_path.glob("runs/short_*/nn/last.pth")
    named, report = f"checkpoint={checkpoint}", checkpoint.with_name("last_adapted_mujoco.json")
    found = []
    for script, *arguments in (
        ("evaluate.py", named),
        ("train.py", named, "test=True"),
        ("train.py", named, "test=True", "task=Cartpole"),
        ("train.py", named, "test=True", "seed=42"),
    ):
        result = run_script(script, *arguments)
        assert result.returncode == 0, result.stderr
        figures = json.loads(report.read_text())
        del figures["simulator"]  # in train.py it has a price, too
        found.append((result.stdout.splitlines()[-1], figures))
    assert found[0] == found[1] == found[2] and "64 episodes" in found[0][0]
    assert found[3][0] != found[0][0]
    for argument, words in (("task=Ant", "was trained on task=Cartpole"), ("task.env.resetDist=1", "its own settings")):
        refused = run_script(
            "train.py", named, "test=True", *([argument] if "." not in argument else ["task=Cartpole", argument])
        )
        assert refused.returncode == 2 and words in refused.stderr, refused.stderr


@pytest.mark.parametrize(("n", "words"), [(1, ", 1 episode"), (3, ", 3 episodes")])
def test_the_line_counts_episodes(n: int, words: str) -> None:
    evaluation = Evaluation(np.ones(n), np.full(n, 5.0), np.zeros(n, bool), 0, {}, {})
    assert evaluation.line().endswith(words)


def test_what_was_evaluated_is_shown_in_a_page_until_ctrl_c(
    compose_config: Callable[..., DictConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("mjviser")
    seen = []

    def look_and_press_ctrl_c(page: BrowserPage, playback: Playback) -> Iterator[str]:
        with urllib.request.urlopen(page.url, timeout=20) as answer:
            seen.append((answer.status, page.url, playback.show.policies, playback.show.engines))
        raise KeyboardInterrupt
        yield ""

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "play_in", look_and_press_ctrl_c)
    small = ("task=Cartpole", "task.env.episodeLength=20", "viewer_port=18090")
    cfg = compose_config(*small, "agent=random", "headless=False")
    launch.evaluate_agent(cfg, plain(cfg.simulator.high), 2, None)
    [(status, url, policies, engines)] = seen
    assert (status, policies, engines) == (200, ("random",), ("mujoco",))
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("Cartpole, random agent in mujoco: ") and said[-1] == f"open {url}; Ctrl-C ends it"


def test_a_page_begins_with_the_policy_that_was_evaluated(experiment: Experiment) -> None:
    policy = experiment.make_policy()
    with torch.no_grad():
        policy.actor.output_layer.bias.fill_(0.5)
        policy.actor.output_layer.bias_delta.fill_(-1.0)
    show = EnvironmentShow(
        experiment, policy_agents(experiment, policy, "base"), {"mujoco": dict(experiment.high_engine)}
    )
    try:
        assert show.policies == ("base", "adapted")
        show.begin()
        for name, push in (("base", 1.0), ("adapted", -1.0)):
            show.choose_policy(name, 1.0)
            before = show._pool.simulator.qvel[0, 0].item()
            show.step()
            assert np.sign(show._pool.simulator.qvel[0, 0].item() - before) == push
    finally:
        show.close()
