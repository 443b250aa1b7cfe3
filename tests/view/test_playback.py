"""The state machine of playing, with a clock of its own and without a browser."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from dualfid_robot.command import Command
from dualfid_robot.config.machine import ASSETS
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.view.playback import Playback, Step, play_in


class Counting:
    """Counts its steps; the position of the first joint is their number. An episode has ten."""

    title, n, period = "Counting", 2, 0.02
    policies, engines = ("adapted", "base", "dial"), ("mujoco", "mujoco_reduced", "broken")
    commands = (Command("forward velocity", "m/s", "command", 0, -1.0, 1.0),)

    def __init__(self) -> None:
        self.robot = RobotModel(ASSETS / "cartpole.xml")
        self.steps = self.episodes = 0
        self.acting: tuple[str, float] = ("adapted", 1.0)
        self.engine, self.given, self.open = "mujoco", 0.0, True

    def begin(self) -> np.ndarray:
        self.steps, self.episodes = 0, self.episodes + 1
        return np.zeros((2, 2))

    def step(self) -> Step:
        self.steps += 1
        ended = self.steps % 10 == 0
        rewards = {"alive": np.array([1.0, 3.0]), "cost": np.array([-1.0, -1.0]) * self.steps}
        returns, lines = ((20.0,), (f"return 20 after {self.steps} steps",)) if ended else ((), ())
        return Step(np.full((2, 2), float(self.steps)), rewards, returns, lines)

    def choose_policy(self, name: str, dial: float) -> None:
        self.acting = (name, dial)

    def choose_engine(self, name: str) -> None:
        if name == "broken":
            raise ConfigError("engine=broken: does not take the robot")
        self.engine = name

    def give_command(self, name: str, value: float) -> None:
        self.given = value

    def commanded(self) -> Mapping[str, float]:
        return {"forward velocity": self.given}

    def news(self) -> str:
        return "news"

    def close(self) -> None:
        self.open = False


@pytest.fixture
def show() -> Counting:
    return Counting()


@pytest.fixture
def playback(show: Counting) -> Playback:
    playback = Playback(show)
    playback.tick(0.0)
    return playback


def times(start: float, end: float, period: float = 0.01) -> Iterator[float]:
    """Looks at a clock, more often than steps are due."""
    yield from np.arange(start + period, end + 1e-9, period)


def passed(playback: Playback, start: float, end: float) -> int:
    """Steps that are done while a clock goes on."""
    return sum(len(playback.tick(now) or ()) for now in times(start, end))


@pytest.mark.parametrize(("speed", "steps"), [(0.1, 10), (0.5, 50), (1.0, 100), (4.0, 400)])
def test_time_passes_at_the_speed_that_was_asked_for(playback: Playback, speed: float, steps: int) -> None:
    playback.set_speed(speed)
    assert abs(passed(playback, 0.0, 2.0) - steps) <= 1  # of 0.02 s each
    assert playback.time == pytest.approx(0.02 * steps, abs=0.03)


def test_a_pause_stops_time_and_single_steps_are_single(playback: Playback, show: Counting) -> None:
    playback.pause()
    assert passed(playback, 0.0, 1.0) == 0
    for number in range(3):
        playback.single_step()
        assert passed(playback, 1.0 + number, 2.0 + number) == 1
    assert playback.paused and show.steps == 3
    np.testing.assert_array_equal(playback.qpos, 3.0)
    # What passed meanwhile is not caught up.
    playback.pause(False)
    playback.tick(10.0)
    assert show.steps <= 3 + 5
    assert 49 <= passed(playback, 10.0, 11.0) <= 51


def test_a_single_step_pauses(playback: Playback, show: Counting) -> None:
    passed(playback, 0.0, 0.1)
    before = show.steps
    playback.single_step()
    assert passed(playback, 0.1, 1.0) == 1 and show.steps == before + 1


def test_what_is_not_done_in_time_is_lost(playback: Playback) -> None:
    steps = playback.tick(5.0)
    assert steps is not None and len(steps) == 5  # a tenth of a second, not five


def test_nothing_new_is_not_drawn(playback: Playback) -> None:
    playback.pause()
    assert playback.tick(0.1) == []
    assert playback.tick(0.2) is None
    playback.give_command("forward velocity", 0.5)
    assert playback.tick(0.3) == []  # its arrow is


def test_choices_act_with_the_next_tick(playback: Playback, show: Counting) -> None:
    playback.choose_policy("base")
    assert show.acting == ("adapted", 1.0)
    playback.tick(0.001)
    assert show.acting == ("base", 1.0) and playback.policy == "base"
    playback.choose_policy("dial", 0.25)
    playback.choose_engine("mujoco_reduced")
    playback.give_command("forward velocity", -0.5)
    began = show.episodes
    playback.tick(0.002)
    assert show.acting == ("dial", 0.25) and (playback.policy, playback.dial) == ("dial", 0.25)
    assert show.engine == playback.engine == "mujoco_reduced" and show.episodes == began + 1
    assert show.given == -0.5
    playback.reset()
    playback.tick(0.003)
    assert show.episodes == began + 2 and not playback.qpos.any()


def test_an_engine_that_refuses_is_a_message_and_the_other_goes_on(playback: Playback, show: Counting) -> None:
    playback.choose_engine("broken")
    playback.tick(0.1)
    assert playback.message == "engine=broken: does not take the robot"
    assert playback.engine == show.engine == "mujoco"
    playback.choose_engine("mujoco_reduced")
    playback.tick(0.2)
    assert playback.message == "" and playback.engine == "mujoco_reduced"


def test_curves_are_the_means_of_the_robots(playback: Playback) -> None:
    passed(playback, 0.0, 0.5)
    assert list(playback.rewards) == ["alive", "cost"]
    assert set(playback.rewards["alive"]) == {2.0}
    assert list(playback.rewards["cost"])[:3] == [-1.0, -2.0, -3.0]
    assert list(playback.times)[:2] == pytest.approx([0.02, 0.04])
    assert list(playback.returns) == [20.0, 20.0]
    passed(playback, 0.5, 30.0)
    assert len(playback.times) == len(playback.rewards["alive"]) == 400  # eight seconds
    assert playback.times[-1] == pytest.approx(30.0, abs=0.05)


class Looker:
    """A view that counts how often it is drawn."""

    def __init__(self, closes_after: int) -> None:
        self.drawn, self._closes_after = 0, closes_after

    @property
    def closed(self) -> bool:
        return self.drawn >= self._closes_after

    def show(self) -> None:
        self.drawn += 1

    def close(self) -> None: ...


def test_playing_ends_with_the_view_or_with_its_time(show: Counting) -> None:
    fast = Playback(show, math.inf)
    looker = Looker(25)
    assert list(play_in(looker, fast)) == ["return 20 after 10 steps", "return 20 after 20 steps"]
    assert looker.drawn == show.steps == 25
    assert list(play_in(Looker(10**9), fast, duration=0.62)) == ["return 20 after 30 steps"]
    assert show.steps == 31
