"""Playing before a person's eyes. It decides which step is due when, takes what was asked for, and keeps the curves.

What is played is a `Show`, such as an exported policy or a checkpoint. What shows it is a `View`, such as a page in a
browser. A `Playback` stands between the two. It knows neither files nor browsers.
"""

from __future__ import annotations

import math
import queue
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dualfid_robot.command import Command
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel

SPEEDS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Multiples of real time to choose from."""

_PERIOD = 1.0 / 60.0  # s between two looks at the clock
_MOST_BEHIND = 0.1  # s of real time that are caught up; what is more is lost
_WINDOW = 8.0  # s that curves of rewards show
_EPISODES = 200  # that the curve of returns shows


@dataclass(frozen=True)
class Step:
    """What one control period brought to n robots.

    Attributes:
        qpos: (n, nq) afterwards; of the next episode where one ended.
        rewards: (n,) of each term of the reward; without terms, of the reward.
        returns: of the episodes that ended.
        lines: one for each of these, to be printed.
    """

    qpos: np.ndarray
    rewards: Mapping[str, np.ndarray]
    returns: tuple[float, ...] = ()
    lines: tuple[str, ...] = ()


class Show(Protocol):
    """What is played. All methods are called by one thread.

    Attributes:
        title: such as "Ant".
        robot: the robots' model.
        n: number of robots.
        period: of control, s.
        policies: which of them may be chosen, out of "adapted", "base" and "dial". The first is playing.
        engines: likewise.
        commands: what an operator may command.
    """

    title: str
    robot: RobotModel
    n: int
    period: float
    policies: tuple[str, ...]
    engines: tuple[str, ...]
    commands: tuple[Command, ...]

    def begin(self) -> np.ndarray:
        """Begin new episodes; their qpos (n, nq)."""

    def step(self) -> Step:
        """One control period."""

    def choose_policy(self, name: str, dial: float) -> None:
        """Let one of `policies` act; the dial says how much of the adapter, where it is "dial"."""

    def choose_engine(self, name: str) -> None:
        """Go on in one of `engines`, with new episodes.

        Raises:
            ConfigError: the engine does not take the robot. The one before goes on.
        """

    def give_command(self, name: str, value: float) -> None:
        """Command all robots from now on."""

    def commanded(self) -> Mapping[str, float]:
        """The commands in force of the first robot."""

    def news(self) -> str:
        """One line about what is played, such as how far its training is."""

    def close(self) -> None:
        """Release the engine."""


class View(Protocol):
    """What a person sees."""

    @property
    def closed(self) -> bool:
        """Whether the person has closed it."""

    def show(self) -> None:
        """Draw the playback's state."""

    def close(self) -> None:
        """Close it."""


class Playback:
    """The state of playing. Its controls may be called by any thread, and act with the next tick.

    Attributes:
        show: what is played.
        qpos: (n, nq) as it is now.
        paused: whether time stands still.
        speed: times real time; infinite: as fast as it goes.
        policy, dial, engine: what acts, how much of the adapter, and where.
        message: what went wrong with the last choice. It is empty where nothing did.
        time: s played in all.
        rewards: (steps,) of each term, means over the robots, of the last seconds; oldest first.
        times: (steps,) the time of each.
        returns: of the last episodes, oldest first.
    """

    def __init__(self, show: Show, speed: float = 1.0, dial: float = 1.0) -> None:
        self.show = show
        self.paused, self.speed = False, speed
        self.policy, self.dial, self.engine = show.policies[0], dial, show.engines[0]
        self.message = ""
        self.time = 0.0
        self.times: deque[float] = deque(maxlen=max(2, round(_WINDOW / show.period)))
        self.rewards: dict[str, deque[float]] = {}
        self.returns: deque[float] = deque(maxlen=_EPISODES)
        self.qpos = show.begin()
        self._asked: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._single_steps = 0
        self._debt = 0.0  # control periods that are due
        self._last: float | None = None

    # --- controls

    def pause(self, paused: bool = True) -> None:
        """Let time stand still, or go on."""
        self._ask(lambda: self._set(paused=paused))

    def single_step(self) -> None:
        """Pause, and do one control period."""
        self._ask(lambda: self._set(paused=True, _single_steps=self._single_steps + 1))

    def set_speed(self, speed: float) -> None:
        """Play at so many times real time."""
        self._ask(lambda: self._set(speed=speed))

    def reset(self) -> None:
        """Begin new episodes."""
        self._ask(self._begin)

    def choose_policy(self, name: str, dial: float | None = None) -> None:
        """Let another policy act, or turn the dial."""

        def choose() -> None:
            wanted = self.dial if dial is None else dial
            self.show.choose_policy(name, wanted)
            self.policy, self.dial = name, wanted

        self._ask(choose)

    def choose_engine(self, name: str) -> None:
        """Go on in another engine."""

        def choose() -> None:
            self.show.choose_engine(name)
            self.engine = name
            self._begin()

        self._ask(choose)

    def give_command(self, name: str, value: float) -> None:
        """Command all robots."""
        self._ask(lambda: self.show.give_command(name, value))

    # --- time

    def tick(self, now: float) -> list[Step] | None:
        """Do what was asked for and the control periods that are due.

        Args:
            now: s, of a clock that does not go back.

        Returns:
            the steps. It is None where nothing is new to see.
        """
        changed = False
        while not self._asked.empty():
            changed = True
            try:
                self._asked.get()()
                self.message = ""
            except ConfigError as error:
                self.message = str(error)
        steps = [self._step() for _ in range(self._due(now))]
        return steps if steps or changed else None

    def _due(self, now: float) -> int:
        """Control periods to do now."""
        passed = 0.0 if self._last is None else now - self._last
        self._last = now
        if self.paused:
            due, self._single_steps, self._debt = self._single_steps, 0, 0.0
            return due
        if math.isinf(self.speed):
            return 1
        self._debt += min(passed, _MOST_BEHIND) * self.speed / self.show.period
        due = int(self._debt)
        self._debt -= due
        return due

    def _step(self) -> Step:
        step = self.show.step()
        self.qpos, self.time = step.qpos, self.time + self.show.period
        self.times.append(self.time)
        for name, values in step.rewards.items():
            self.rewards.setdefault(name, deque(maxlen=self.times.maxlen)).append(float(values.mean()))
        self.returns.extend(step.returns)
        return step

    def _begin(self) -> None:
        self.qpos = self.show.begin()

    def _ask(self, request: Callable[[], None]) -> None:
        self._asked.put(request)

    def _set(self, **values: object) -> None:
        vars(self).update(values)


def play_in(view: View, playback: Playback, duration: float = math.inf) -> Iterator[str]:
    """Play until the view is closed or the time is over. Yields a line for each episode that ended.

    Args:
        view: shows the playback.
        playback: what is played.
        duration: s of simulated time.
    """
    while not view.closed and playback.time < duration - 0.5 * playback.show.period:
        started = time.monotonic()
        steps = playback.tick(started)
        if steps is not None:
            view.show()
            yield from (line for step in steps for line in step.lines)
        if not math.isinf(playback.speed) or playback.paused:
            time.sleep(max(0.0, _PERIOD - (time.monotonic() - started)))
