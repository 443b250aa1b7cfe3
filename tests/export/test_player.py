"""The player: returns as the checkpoint's in every engine, operators' commands, live views, and what it refuses."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import mujoco
import numpy as np
import pytest
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from robot_files import permuted
from untrained import NUM_ENVS, SEED, ExportOf

from dualfid_robot.config import progress
from dualfid_robot.config.engines import choose_engines, hydra_apart, simulator_settings
from dualfid_robot.config.machine import ASSETS
from dualfid_robot.errors import ConfigError
from dualfid_robot.evaluate.agents import policy_agent
from dualfid_robot.evaluate.evaluation import Evaluation, paired_difference
from dualfid_robot.export.closed_loop import visit
from dualfid_robot.onboard.commands import CommandFile, Keyboard, Operator
from dualfid_robot.onboard.metadata import SCHEMA_VERSION, Metadata
from dualfid_robot.onboard.runtime import METADATA, POLICY, ExportedPolicy
from dualfid_robot.play.export_show import ExportShow
from dualfid_robot.play.headless import _acting
from dualfid_robot.play.launch import engine_settings, launch_play
from dualfid_robot.play.player import Player, comparison
from dualfid_robot.play.simulated_robot import SimulatedRobot
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.runs.saved_policy import load_policy
from dualfid_robot.view.page import BrowserPage
from dualfid_robot.view.playback import Playback, play_in
from dualfid_robot.view.window import Window

ROOT = Path(__file__).parents[2]

PACKAGES = {"pybullet": "pybullet", "physx": "sapien"}
MakePlayer = Callable[..., Player]


@pytest.fixture
def make_player() -> Iterator[MakePlayer]:
    """make_player(folder, n=…, simulator=…, robot=…, dial=…, commands=…); the engines are closed at the end."""
    robots = []

    def make(
        folder: Path, n: int = NUM_ENVS, simulator: str = "mujoco", robot: Path | None = None, **arguments: Any
    ) -> Player:
        policy = ExportedPolicy(folder)
        metadata = policy.metadata
        settings = settings_of(simulator, metadata)
        model = RobotModel(robot or folder / metadata.robot.file, metadata.robot.feet)
        robots.append(SimulatedRobot.build(metadata, model, settings, n))
        return Player(policy, robots[-1], **arguments)

    yield make
    for robot in robots:
        robot.close()


def settings_of(simulator: str, metadata: Metadata) -> dict[str, Any]:
    settings = simulator_settings(simulator, {"simulators": metadata.training.calibration})
    return settings | {key: 1 for key in ("threads", "workers") if key in settings}


def of_the_checkpoint(folder: Path, simulator: str, policy: str = "adapted") -> Evaluation:
    """The checkpoint's policy by PyTorch in the task's own environments, from the same starts."""
    checkpoint = folder.parent / "checkpoint.pth"
    metadata = ExportedPolicy(folder).metadata
    experiment, network = load_policy(checkpoint, sim_device="cpu")
    agent = policy_agent(network, policy)  # type: ignore[arg-type]
    return visit(experiment, settings_of(simulator, metadata), NUM_ENVS, SEED, agent, 0).evaluation


def first_rewards(folder: Path, simulator: str, steps: int) -> np.ndarray:
    """(steps, n) rewards of the same."""
    experiment, network = load_policy(folder.parent / "checkpoint.pth", sim_device="cpu")
    agent = policy_agent(network, "adapted")
    pool = experiment.make_pool(settings_of(simulator, ExportedPolicy(folder).metadata), NUM_ENVS, SEED)
    rewards = []
    for _ in range(steps):
        pool.step(agent(pool.observations))
        rewards.append(pool.reward.numpy().copy())
    pool.simulator.close()
    return np.array(rewards)


# --- returns ---------------------------------------------------------------------------------------------------------


def test_cartpole_returns_what_the_checkpoint_returns(export_of: ExportOf, make_player: MakePlayer) -> None:
    folder = export_of("Cartpole")
    expected = of_the_checkpoint(folder, "mujoco")
    played = make_player(folder).play()
    np.testing.assert_allclose(played.returns, expected.returns, atol=1e-3)
    np.testing.assert_array_equal(played.lengths, expected.lengths)
    np.testing.assert_array_equal(played.terminated, expected.terminated)


def test_the_first_episode_counts_alone(export_of: ExportOf, make_player: MakePlayer) -> None:
    """Poles that tip over early, against a sum by hand."""
    player = make_player(export_of("Cartpole"))
    player.starts["qpos"][:3, 1] = [1.5, -1.5, 1.2]
    player.begin()
    outcomes = [player.step() for _ in range(player.metadata.episode_length)]
    rewards, ends = (np.array([getattr(o, name) for o in outcomes]) for name in ("reward", "terminated"))
    lengths = [int(ends[:, i].argmax()) + 1 if ends[:, i].any() else len(ends) for i in range(NUM_ENVS)]
    assert min(lengths) < 10 and len(set(lengths)) > 2
    played = player.play()
    np.testing.assert_array_equal(played.lengths, lengths)
    np.testing.assert_array_equal(played.terminated, ends.any(0))
    np.testing.assert_allclose(played.returns, [rewards[:n, i].sum() for i, n in enumerate(lengths)], atol=1e-4)
    assert (played.returns[:2] < 8).all()  # -2 at the end, at most 1 before


@pytest.mark.parametrize("engine", ["mujoco", "mujoco_reduced", "pybullet", "physx"])
def test_ant_returns_what_the_checkpoint_returns_in_every_engine(
    engine: str, export_of: ExportOf, make_player: MakePlayer
) -> None:
    if engine in PACKAGES:
        pytest.importorskip(PACKAGES[engine])
    folder = export_of("Ant", policy="dial")
    player = make_player(folder, simulator=engine)
    expected = of_the_checkpoint(folder, engine)
    played = player.play()
    difference, half = paired_difference(played.returns, expected.returns)
    assert abs(difference) <= max(half, 1e-3 * abs(expected.mean))
    assert np.ptp(expected.returns) > 1.0  # the starts are not all alike
    if engine != "physx":  # single precision: what differs by 1e-7 in the first step differs by 0.3 rad in the 30th
        np.testing.assert_allclose(played.returns, expected.returns, atol=0.05)
        np.testing.assert_allclose(played.measures["speed"], expected.measures["speed"], atol=0.01)
    player.begin()
    np.testing.assert_allclose([player.step().reward for _ in range(4)], first_rewards(folder, engine, 4), atol=1e-3)


def test_the_dial_is_the_base_policy_at_zero(export_of: ExportOf, make_player: MakePlayer) -> None:
    folder = export_of("Ant", policy="dial")
    expected, adapted = of_the_checkpoint(folder, "mujoco", "base"), of_the_checkpoint(folder, "mujoco")
    played = make_player(folder, dial=0.0).play()
    np.testing.assert_allclose(played.returns, expected.returns, rtol=1e-3)
    assert np.abs(played.returns - adapted.returns).max() > 0.1


def test_a_permuted_robot_returns_the_same(export_of: ExportOf, make_player: MakePlayer, tmp_path: Path) -> None:
    folder = export_of("Ant", policy="dial")
    own = make_player(folder)
    other = make_player(folder, robot=permuted(folder / own.metadata.robot.file, tmp_path, 2))
    assert other.robot.robot.joint_names != own.robot.robot.joint_names
    np.testing.assert_allclose(other.play().returns, own.play().returns, rtol=1e-4)
    np.testing.assert_allclose(other.controller.observation, own.controller.observation, atol=1e-3)


def test_fewer_robots_play_the_first_starts(export_of: ExportOf, make_player: MakePlayer) -> None:
    folder = export_of("Cartpole")
    stored = np.array(ExportedPolicy(folder).metadata.evaluations["mujoco"].returns)
    np.testing.assert_allclose(make_player(folder, 2).play().returns, stored[:2], atol=1e-3)
    with pytest.raises(ConfigError, match=f"num_envs=5: this export has {NUM_ENVS} initial states; ask for at most 4"):
        make_player(folder, 5).play()


def test_a_robot_that_fails_has_ended_and_is_not_rewarded(export_of: ExportOf, make_player: MakePlayer) -> None:
    player = make_player(export_of("Cartpole"))
    whole = player.play()
    player.starts["qvel"][1] = 1e9
    played = player.play()
    assert played.returns[1] == 0.0 and played.lengths[1] == 1 and played.terminated[1] and played.failures == 1
    np.testing.assert_allclose(np.delete(played.returns, 1), np.delete(whole.returns, 1), atol=1e-6)


def test_the_comparison_is_with_the_same_settings(export_of: ExportOf) -> None:
    """A paired t interval by hand: differences 1, 2, 3, 4 with t(0.995, 3) = 5.84091."""
    metadata = ExportedPolicy(export_of("Cartpole")).metadata
    stored = metadata.evaluations["mujoco"]
    ours = Evaluation(np.array(stored.returns) + np.arange(1, 5), np.ones(4), np.ones(4, bool), 0, {}, {})
    text = comparison(metadata, {**stored.simulator, "threads": 17}, ours)
    half = 5.84091 * np.std([1, 2, 3, 4], ddof=1) / 2
    assert f"the exporter measured {stored.mean:.6g} from these starts; the difference is 2.5 (" in text
    assert f"{2.5 - half:.3g} to {2.5 + half:.3g}" in text
    assert "measured nothing with these settings" in comparison(metadata, {**stored.simulator, "substeps": 3}, ours)


# --- commands --------------------------------------------------------------------------------------------------------


def write_commands(folder: Path, text: str) -> Path:
    path = folder / "commands.csv"
    path.write_text(text)
    return path


def test_a_file_commands_and_holds(export_of: ExportOf, make_player: MakePlayer, tmp_path: Path) -> None:
    """Rows take effect at their time, to the control period, and the policy sees them."""
    folder = export_of("Anymal")
    metadata = ExportedPolicy(folder).metadata
    dt = metadata.timing.control_dt
    path = write_commands(tmp_path, f"time,turning rate, forward velocity\n{3 * dt},0.5,1\n\n{6 * dt},-1,-2\n")
    player = make_player(folder, 2, commands=CommandFile(path, metadata))
    player.begin()
    begun = player.controller.memory["command"].copy()
    first = next(i for i, term in enumerate(metadata.observation) if term.name == "linear_command")
    column = sum(term.dim * term.history for term in metadata.observation[:first])
    scale = metadata.observation[first].scale
    for step in range(9):
        player.step()
        expected = begun if step < 3 else np.tile([[1.0, 0.0, 0.5] if step < 6 else [-2.0, 0.0, -1.0]], (2, 1))
        expected = np.where([True, False, True], expected, begun)  # nobody commands the lateral velocity
        np.testing.assert_allclose(player.controller.memory["command"], expected, atol=1e-6)
        seen = player.controller.observation[:, column : column + 2]
        np.testing.assert_allclose(seen, scale * expected[:, :2], atol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the first line must be `time` and the names of commands"),
        ("forward velocity,time\n", "the first line must be `time`"),
        ("time,speed\n0,1\n", r"no command speed; this policy has \['forward velocity'"),
        ("time,turning rate\n0,fast\n", "row 2: turning rate=fast: a number is expected"),
        ("time,turning rate\n0,nan\n", "row 2: turning rate=nan: a number is expected"),
        ("time,turning rate\n0\n", "row 2: has 1 values, the first line has 2"),
        ("time,turning rate\n0,3\n", r"row 2: turning rate=3: must be a number in \[-1, 1\], which was trained"),
        ("time,turning rate\n1,0\n1,1\n", "times must rise from row to row"),
        (None, "no such file"),
    ],
)
def test_a_wrong_file_of_commands_is_refused(
    export_of: ExportOf, tmp_path: Path, text: str | None, message: str
) -> None:
    metadata = ExportedPolicy(export_of("Anymal")).metadata
    path = tmp_path / "none.csv" if text is None else write_commands(tmp_path, text)
    with pytest.raises(ConfigError, match=f"^commands={path}: {message}"):
        CommandFile(path, metadata)


def test_keys_of_a_terminal_command(export_of: ExportOf, monkeypatch: pytest.MonkeyPatch) -> None:
    termios = pytest.importorskip("termios")
    metadata = ExportedPolicy(export_of("Anymal")).metadata
    master, slave = os.openpty()
    with os.fdopen(slave) as terminal, os.fdopen(master, "wb", buffering=0) as hands:
        monkeypatch.setattr(sys, "stdin", terminal)
        before = termios.tcgetattr(slave)
        operator = Operator(metadata)
        with Keyboard(metadata) as keyboard:
            keyboard.update(operator, 0.0)
            assert operator.values == {}
            hands.write(b"wwdx")
            keyboard.update(operator, 0.1)
            # a twentieth of the range (-2 to 2 m/s, -1 to 1 m/s) for each press; x is no key
            assert operator.values == pytest.approx({"forward velocity": 0.4, "lateral velocity": -0.1})
            hands.write(b"w" * 30)
            keyboard.update(operator, 0.2)
            assert operator.values["forward velocity"] == 2.0
            hands.write(b" ")
            keyboard.update(operator, 0.3)
            assert set(operator.values.values()) == {0.0} and len(operator.values) == 3
        assert termios.tcgetattr(slave)[3] == before[3]
        assert "w/s forward velocity" in keyboard.help()


def test_keys_need_a_terminal_and_something_to_command(export_of: ExportOf, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="commands=keyboard: this policy has no commands"):
        Keyboard(ExportedPolicy(export_of("Cartpole")).metadata)
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        with pytest.raises(ConfigError, match="commands=keyboard: the standard input is not a terminal"):
            Keyboard(ExportedPolicy(export_of("Anymal")).metadata)


# --- live views ------------------------------------------------------------------------------------------------------


MakeShow = Callable[..., ExportShow]


@pytest.fixture
def make_show() -> Iterator[MakeShow]:
    """make_show(folder, engine, …, n=1); the engines are closed at the end."""
    shows = []

    def make(folder: Path, *engines: str, n: int = 1) -> ExportShow:
        policy = ExportedPolicy(folder)
        metadata = policy.metadata
        robot = RobotModel(folder / metadata.robot.file, metadata.robot.feet)
        settings = {name: settings_of(name, metadata) for name in engines or ("mujoco",)}
        shows.append(ExportShow(policy, robot, settings, n))
        return shows[-1]

    yield make
    for show in shows:
        show.close()


class Looker:
    """A view that keeps what it was shown."""

    def __init__(self, playback: Playback, closes_after: int = 10**9) -> None:
        self.shown: list[np.ndarray] = []
        self._playback, self._closes_after = playback, closes_after

    @property
    def closed(self) -> bool:
        return len(self.shown) >= self._closes_after

    def show(self) -> None:
        self.shown.append(self._playback.qpos.copy())

    def close(self) -> None: ...


def test_one_episode_follows_another_in_a_viewer(export_of: ExportOf, make_show: MakeShow) -> None:
    folder = export_of("Ant", policy="dial")
    stored = ExportedPolicy(folder).metadata.evaluations["mujoco"]
    playback = Playback(make_show(folder), np.inf)
    looker = Looker(playback)
    steps = sum(stored.lengths[:3]) + 1
    lines = list(play_in(looker, playback, steps * playback.show.period))
    assert (
        lines
        == [f"return {r:.4g} after {n / 60:.2f} s" for r, n in zip(stored.returns, stored.lengths, strict=True)][:3]
    )
    assert list(playback.returns) == pytest.approx(stored.returns[:3], rel=1e-3)
    assert len(looker.shown) == steps and looker.shown[0].shape == (1, 15)
    total = sum(np.array(playback.rewards[name]) for name in playback.rewards)
    assert len(playback.rewards) > 3 and total.sum() == pytest.approx(sum(stored.returns[:3]), rel=0.2)


def test_another_engine_and_another_policy_act(export_of: ExportOf, make_show: MakeShow) -> None:
    show = make_show(export_of("Ant", policy="dial"), "mujoco", "mujoco_reduced", n=2)
    assert show.policies == ("adapted", "base", "dial")
    trajectories = []
    for engine, policy in (("mujoco", "adapted"), ("mujoco", "base"), ("mujoco_reduced", "base")):
        show.choose_engine(engine)
        show.choose_policy(policy, 1.0)
        show._first = 0
        show.begin()
        trajectories.append(np.stack([show.step().qpos for _ in range(10)]))
    assert trajectories[0].shape == (10, 2, 15)
    for one, other in itertools.combinations(trajectories, 2):
        assert np.abs(one - other).max() > 1e-6


@pytest.mark.alone
def test_a_live_episode_keeps_real_time(export_of: ExportOf, make_show: MakeShow) -> None:
    playback = Playback(make_show(export_of("Cartpole")))
    began = time.monotonic()
    list(play_in(Looker(playback), playback, 0.5))
    assert 0.45 <= time.monotonic() - began < 3.0


def test_the_browser_sees_the_robots_and_commands_them(export_of: ExportOf, make_show: MakeShow) -> None:
    pytest.importorskip("mjviser")
    show = make_show(export_of("Anymal"), "mujoco", "mujoco_reduced", n=2)
    playback = Playback(show, np.inf)
    page = BrowserPage(playback, "127.0.0.1", 0)
    try:
        with urllib.request.urlopen(page.url, timeout=10) as answer:
            assert answer.status == 200 and b"<html" in answer.read().lower()
        assert set(page.commands) == {"forward velocity", "lateral velocity", "turning rate"} and page.dial is None
        slider = page.commands["turning rate"]
        assert (slider.min, slider.max) == (-1.0, 1.0)
        assert slider.value == pytest.approx(show.commanded()["turning rate"], abs=0.01)
        slider.value = -0.75
        wait_until(lambda: not playback._asked.empty())
        assert not list(play_in(page, playback, 5 * show.period))
        assert (show._player.controller.memory["command"][:, 2] == -0.75).all()
        shown = page._bodies._mesh_groups
        assert shown and all(np.isfinite(group.handle.batched_positions).all() for group in shown)
        # Turning by -0.75 rad/s points to the right of where the robot looks.
        start, end = page._arrow._handle.points[1]
        ahead = page._scene.data.xmat[page._arrow._body].reshape(3, 3)[:2, 0]
        assert np.cross(ahead, (end - start)[:2]) == pytest.approx(-0.375 * np.linalg.norm(ahead), rel=1e-3)
        page.engine.value = "mujoco_reduced"
        page.pause.value = True
        wait_until(lambda: playback._asked.qsize() == 2)
        playback.tick(0.0)
        assert (playback.engine, playback.paused) == ("mujoco_reduced", True)
        page._plot()
        assert "mujoco_reduced" in page._text.content
    finally:
        page.close()
    with pytest.raises(OSError):
        urllib.request.urlopen(page.url, timeout=1)


def test_the_browser_turns_the_dial(export_of: ExportOf, make_show: MakeShow) -> None:
    pytest.importorskip("mjviser")
    show = make_show(export_of("Ant", policy="dial"))
    playback = Playback(show)
    page = BrowserPage(playback, "127.0.0.1", 0)
    try:
        page.dial.value = 0.25
        wait_until(lambda: not playback._asked.empty())
        playback.tick(0.0)
        assert show._player.controller.dial == 0.25 and page.policy.value == "dial"
    finally:
        page.close()


def wait_until(condition: Callable[[], bool]) -> None:
    """Callbacks of the page come from threads."""
    deadline = time.monotonic() + 5.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.skipif("DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ, reason="there is a display")
@pytest.mark.skipif(sys.platform != "linux", reason="other systems always have a display")
def test_a_window_needs_a_display(export_of: ExportOf, make_show: MakeShow) -> None:
    with pytest.raises(ConfigError, match="viewer=native: there is no display; use viewer=browser, or video="):
        Window(Playback(make_show(export_of("Cartpole"))))


# --- the command line ------------------------------------------------------------------------------------------------

RunScript = Callable[..., subprocess.CompletedProcess[str]]


def composed(*overrides: str) -> DictConfig:
    """cfg/play.yaml with overrides, as Hydra gives it to the job."""
    with hydra_apart():
        cfg = compose("play", list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    return choose_engines(cfg, cfg.hydra.runtime.choices, overrides)


def test_play_from_an_empty_folder(export_of: ExportOf, run_script: RunScript, tmp_path: Path) -> None:
    folder = export_of("Cartpole")
    stored = ExportedPolicy(folder).metadata.evaluations["mujoco"]
    done = run_script("play.py", f"policy={folder / POLICY}", "simulator.threads=1", "viewer=none")
    assert done.returncode == 0, done.stderr
    assert f"Cartpole, adapted policy in mujoco: return {stored.mean:.4g} (" in done.stdout
    assert f"the exporter measured {stored.mean:.6g} from these starts; the difference is" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("head", "dial", "words"),
    [
        ("dial", 1.0, "adapted policy"),
        ("dial", 0, "base policy"),
        ("dial", 0.5, "policy at dial 0.5"),
        ("base", 1.0, "base policy"),
    ],
)
def test_numbers_say_which_policy_acts(head: str, dial: float, words: str) -> None:
    assert _acting(head, dial) == words


def test_a_video_of_the_permuted_robot_in_another_engine(
    export_of: ExportOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = export_of("Ant", policy="dial")
    try:
        mujoco.Renderer(RobotModel(folder / "robot.xml").model, 32, 32).close()
    except (RuntimeError, AttributeError, ImportError, mujoco.FatalError) as error:
        pytest.skip(f"no OpenGL: {error}")
    robot = permuted(folder / "robot.xml", tmp_path, 2)
    overrides = ("simulator=mujoco_reduced", "simulator.threads=1", "duration=0.5", f"video={tmp_path / 'ant.mp4'}")
    monkeypatch.setattr(progress, "LINE_INTERVAL", 0.0)
    launch_play(composed(f"policy={folder}", f"robot={robot}", *overrides))
    assert capsys.readouterr().err.splitlines()[-2].startswith("video, 29 of 29, ")
    with imageio.get_reader(tmp_path / "ant.mp4") as video:
        frames = [frame.astype(int) for frame in video]
    assert len(frames) == 15  # of 30 steps at 60 Hz, at 30 Hz
    assert np.abs(frames[0] - frames[-1]).max() > 50  # something moved


def test_no_task_is_imported(export_of: ExportOf, tmp_path: Path) -> None:
    program = f"""
import runpy, sys
sys.argv = ["play.py", "policy={export_of("Cartpole")}", "num_envs=1", "duration=0.1", "viewer=none"]
try:
    runpy.run_path({str(ROOT / "play.py")!r}, run_name="__main__")
finally:
    print([name for name in sys.modules if name.startswith(("dualfid_robot.tasks.", "dualfid_robot.envs.task"))])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def edited(folder: Path, copy: Path) -> Path:
    """A copy in which one digit of the robot's file is another one."""
    shutil.copytree(folder, copy)
    path = copy / "robot.xml"
    path.write_text(path.read_text().replace("1", "2", 1))
    return copy


def truncated(folder: Path, copy: Path) -> Path:
    shutil.copytree(folder, copy)
    path = copy / POLICY
    path.write_bytes(path.read_bytes()[:-100])
    return copy


def incomplete(folder: Path, copy: Path) -> Path:
    shutil.copytree(folder, copy)
    (copy / "episode.onnx").unlink()
    return copy


def older(folder: Path, copy: Path) -> Path:
    """An export of an older version: all its sums are right."""
    from dualfid_robot.export.networks import embed_property
    from dualfid_robot.onboard.runtime import METADATA_KEY, write_sums

    shutil.copytree(folder, copy)
    values = json.loads((copy / METADATA).read_text()) | {"schema_version": SCHEMA_VERSION - 1}
    text = json.dumps(values)
    (copy / METADATA).write_text(text)
    embed_property(copy / POLICY, METADATA_KEY, text)
    write_sums(copy)
    return copy


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (edited, "robot.xml: is not as export.py wrote it (its SHA-256 differs); export it again"),
        (truncated, "policy.onnx: is not as export.py wrote it (its SHA-256 differs); export it again"),
        (incomplete, "episode.onnx: is missing; copy the whole folder that export.py wrote"),
        (
            older,
            f"policy.onnx: schema_version={SCHEMA_VERSION - 1}: this version reads {SCHEMA_VERSION}; export it again",
        ),
    ],
)
def test_a_damaged_export_is_refused_in_one_line(
    damage: Callable[[Path, Path], Path], message: str, export_of: ExportOf, tmp_path: Path
) -> None:
    copy = damage(export_of("Cartpole"), tmp_path / "copy")
    with pytest.raises(ConfigError) as error:
        launch_play(composed(f"policy={copy}", "viewer=none"))
    assert str(error.value) == f"policy={copy}/{message}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "task: name one of ["),
        (("policy={cartpole}", "checkpoint=x"), "leave it or checkpoint=x out"),
        (("task=Ant", "checkpoint={checkpoint}"), "was trained on task=Cartpole, not on task=Ant"),
        (("checkpoint={checkpoint}", "viewer=none"), "viewer=none: evaluate.py measures a checkpoint"),
        (("checkpoint={checkpoint}", "robot=x.xml"), "robot=x.xml: needs an exported policy"),
        (("policy=nowhere",), "policy=nowhere: no policy.onnx there; name the folder"),
        (("policy={cartpole}", "robot=" + str(ASSETS / "ant.xml")), "robot=ant.xml: has no joint slider,"),
        (("policy={cartpole}", "num_envs=5"), "num_envs=5: this export has 4 initial states; ask for at most 4"),
        (("policy={cartpole}", "num_envs=many"), "num_envs=many: must be a whole number of at least 1"),
        (("policy={cartpole}", "dial=0.5"), "dial=0.5: this policy has no dial; export it with policy=dial"),
        (("policy={cartpole}", "viewer=hologram"), "viewer=hologram: allowed are ['none', 'browser', 'native']"),
        (("policy={cartpole}", "udp_port=5005", "num_envs=2"), "num_envs=2: must be 1 with udp_port=5005"),
        (("policy={cartpole}", "udp_port=5005", "viewer=browser"), "viewer=browser: does not go with udp_port=5005"),
        (("policy={cartpole}", "viewer=browser", "video=x.mp4"), "video=x.mp4: a video is made without a viewer"),
        (("policy={cartpole}", "viewer=none", "commands=keyboard"), "commands=keyboard: nobody presses keys that fast"),
        (("policy={cartpole}", "duration=-1"), "duration=-1: must be a number above 0"),
        (("policy={cartpole}", "udp_port=99999"), "udp_port=99999: must be a whole number from 0 to 65535"),
        (("policy={cartpole}", "udp_port=5005", "commands=x.csv"), "commands=x.csv: with udp_port=5005 the robot"),
        (("policy={cartpole}", "video=nowhere/x.mp4"), "video=nowhere/x.mp4: the folder nowhere does not exist"),
        (("policy={cartpole}", "sim_device=cuda:7"), "sim_device=cuda:7: allowed are ['cpu'"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line(
    arguments: tuple[str, ...], message: str, export_of: ExportOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cartpole = export_of("Cartpole")
    folders = {"cartpole": cartpole, "checkpoint": cartpole.parent / "checkpoint.pth"}
    if not any(argument.startswith(("viewer=", "udp_port=", "video=")) for argument in arguments):
        arguments = (*arguments, "viewer=none")
    with pytest.raises(ConfigError) as error:
        launch_play(composed(*(argument.format(**folders) for argument in arguments)))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_an_error_on_the_command_line_is_one_line(export_of: ExportOf, run_script: RunScript, tmp_path: Path) -> None:
    copy = edited(export_of("Cartpole"), tmp_path / "copy")
    done = run_script("play.py", f"policy={copy}")
    assert done.returncode == 2 and "Traceback" not in done.stdout
    expected = f"error: policy={copy}/robot.xml: is not as export.py wrote it (its SHA-256 differs); export it again\n"
    assert done.stderr == expected


# --- settings of the engine ------------------------------------------------------------------------------------------


def settings_for(metadata: Metadata, *overrides: str) -> dict[str, Any]:
    return engine_settings(composed(*overrides), metadata)


def test_the_policys_own_engine_is_taken(export_of: ExportOf) -> None:
    """Settings of training are taken for the file that they came from; the command line's come first, and other engines
    have what was calibrated for the task."""
    metadata = ExportedPolicy(export_of("Cartpole")).metadata
    high = simulator_settings("mujoco", {}) | {"substeps": 5, "threads": 3}
    low = simulator_settings("mujoco_reduced", {}) | {"iterations": 4}
    training = dataclasses.replace(
        metadata.training,
        engines={"low": {"mujoco_reduced": low}, "high": high},
        calibration={"pybullet": {"friction": 0.7}},
    )
    metadata = dataclasses.replace(metadata, training=training, evaluations={})
    assert settings_for(metadata, "simulator=mujoco") == high | {"threads": 0}
    assert settings_for(metadata, "simulator=mujoco_reduced") == low
    assert settings_for(metadata, "simulator=mujoco", "simulator.substeps=9")["substeps"] == 9
    pybullet = settings_for(metadata, "simulator=pybullet")
    assert pybullet == simulator_settings("pybullet", {}) | {"friction": 0.7}
