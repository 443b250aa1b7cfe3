"""The browser's page: its curves are built anew only where their lines change, and sliders show commands in force."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dualfid_robot.view.page import _COLOURS, BrowserPage, _on_step, _Plot
from dualfid_robot.view.playback import Playback
from tests.view.test_playback import Counting


class Drawn:
    """A plot as the page has it, which counts what makes a browser build it anew."""

    def __init__(self, data: tuple[np.ndarray, ...], series: tuple[dict[str, Any], ...], **settings: Any) -> None:
        self.data, self.settings, self.builds = data, settings, 0
        self.series = series

    @property
    def labels(self) -> list[str]:
        return [line["label"] for line in self.series]

    def __setattr__(self, name: str, value: object) -> None:
        if name == "series":
            self.builds += 1
        super().__setattr__(name, value)


class FakeServer:
    """Keeps the plots that were added to it."""

    def __init__(self) -> None:
        self.plots: list[Drawn] = []
        self.gui = SimpleNamespace(add_uplot=self.add)
        self.atomic = contextlib.nullcontext

    def add(self, *arguments: Any, **settings: Any) -> Drawn:
        self.plots.append(Drawn(*arguments, **settings))
        return self.plots[-1]


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


def window(first: int, **heights: float) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A hundred values of each curve, from the moment `first` on."""
    return np.arange(first, first + 100.0), {name: np.full(100, height) for name, height in heights.items()}


def test_new_values_build_no_new_plot(server: FakeServer) -> None:
    plot = _Plot(server, "Reward by term", "time, s")
    for first in range(300):
        plot.draw(*window(first, alive=1.0, energy=-0.1 * first))
    (drawn,) = server.plots
    assert drawn.builds == 1 and drawn.labels == ["time, s", "alive", "energy"]
    assert drawn.data[0][0] == 299 and drawn.data[2][0] == pytest.approx(-29.9)


def test_another_line_builds_one(server: FakeServer) -> None:
    plot = _Plot(server, "Reward by term", "time, s")
    plot.draw(*window(0, alive=1.0, energy=-0.5))
    plot.draw(*window(1, alive=1.0, up=0.2))  # another task's terms
    (drawn,) = server.plots
    assert drawn.builds == 2 and drawn.labels[1:] == ["alive", "up"] and len(drawn.data) == 3


def test_the_largest_lines_are_chosen_again_when_all_values_are_new(server: FakeServer) -> None:
    heights = {f"term{k}": 10.0 + k for k in range(len(_COLOURS))}
    plot = _Plot(server, "Reward by term", "time, s")
    plot.draw(*window(0, small=0.0, **heights))
    (drawn,) = server.plots
    assert drawn.labels[1:] == list(heights)
    for first in range(1, 100):
        plot.draw(*window(first, small=-100.0, **heights))
    assert drawn.builds == 1
    plot.draw(*window(100, small=-100.0, **heights))
    assert drawn.builds == 2 and drawn.labels[1:] == ["small", *list(heights)[1:]]


def test_the_axes_have_room_for_their_numbers(server: FakeServer) -> None:
    _Plot(server, "Reward by term", "time, s").draw(*window(0, alive=1.0))
    horizontal, vertical = server.plots[0].settings["axes"]
    assert horizontal["label"] == "time, s"
    assert server.plots[0].settings["padding"][0] >= 12 / 2
    assert vertical["size"] >= 7 * 7.5 + 15  # "-12,000" in uPlot's 12 pixels, with its tick and its gap


@pytest.mark.parametrize(("value", "shown"), [(0.9986, 1.0), (-0.7806, -0.78), (3.0, 2.0), (-9.0, -2.0), (0.0, 0.0)])
def test_sliders_show_few_digits(value: float, shown: float) -> None:
    assert _on_step(value, -2.0, 2.0) == pytest.approx(shown, abs=0.021)
    assert len(f"{_on_step(value, -2.0, 2.0)}") <= 5


@pytest.fixture
def page() -> Iterator[BrowserPage]:
    pytest.importorskip("mjviser")
    show = Counting()
    page = BrowserPage(Playback(show), "127.0.0.1", 0)
    yield page
    page.close()


def test_sliders_follow_the_commands_until_a_person_gives_some(page: BrowserPage) -> None:
    playback, slider = page._playback, page.commands["forward velocity"]
    show = playback.show
    assert isinstance(show, Counting)
    show.given = 0.5  # a new episode's own
    page._plot()
    playback.tick(0.0)
    assert slider.value == 0.5 and show.given == 0.5
    slider.value = -0.3
    page._plot()
    playback.tick(0.1)
    assert show.given == -0.3
    show.given = 0.7
    page._plot()
    assert slider.value == -0.3


def test_the_time_has_a_line_that_never_becomes_two(page: BrowserPage) -> None:
    playback = page._playback
    playback.time = 12345.0
    page._plot()
    first, second = page._text.content.split("\n\n")[0].split("  \n")
    assert first == f"**{playback.show.title}** · 12345 s" and len(first) < 40
    assert second == f"{playback.policy} policy in {playback.engine}"
