"""The viewer of a run: it serves a page, follows the policy, and cannot end the run."""

from __future__ import annotations

import os
import re
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from dualfid_robot.config.experiment import Experiment
from dualfid_robot.errors import ConfigError
from dualfid_robot.play.checkpoint_show import CheckpointShow
from dualfid_robot.runs.checkpoint import load_checkpoint
from dualfid_robot.runs.identity import identity
from dualfid_robot.train.viewer import RunViewer
from dualfid_robot.view.page import wants_page

SMALL = ("task=Cartpole", "simulator/low=mujoco_reduced", "num_envs=16", "train.params.config.minibatch_size=256")


@pytest.fixture
def experiment(compose_config: Callable[..., DictConfig]) -> Experiment:
    return Experiment(compose_config(*SMALL, "viewer=browser", "viewer_port=18080"))


def wait_until(condition: Callable[[], bool], seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_a_page_is_served_until_the_run_ends_or_its_process_does(
    experiment: Experiment,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("mjviser")
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    browser.chmod(0o755)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("BROWSER", str(browser))
    policy = experiment.make_policy()
    with RunViewer(tmp_path, policy, identity(experiment), experiment.settings) as viewer:
        url = re.findall(r"http://\S+", capsys.readouterr().out)[0]
        log = tmp_path / "viewer.log"
        wait_until(lambda: "open http" in log.read_text())
        with urllib.request.urlopen(url, timeout=20) as page:
            assert page.status == 200
        wait_until(lambda: opened.is_file() and opened.read_text() == f"{url}\n")
        # A new policy is handed over, at most every two seconds.
        with torch.no_grad():
            policy.actor.output_layer.bias.fill_(0.25)
        viewer._saved -= 2.0
        viewer.update({"iteration": 7.0, "return/high": 3.0})
        state = load_checkpoint(tmp_path / "live.pth")
        assert state["iteration"] == 7 and state["metrics"]["return/high"] == 3.0
        viewer.update({"iteration": 8.0})
        assert load_checkpoint(tmp_path / "live.pth")["iteration"] == 7
        # Its process dies: one warning, and the run goes on.
        os.kill(viewer._process.pid, signal.SIGKILL)
        viewer._process.wait()
        viewer.update({"iteration": 9.0})
        viewer.update({"iteration": 10.0})
        assert [record.getMessage() for record in caplog.records if "the viewer has ended" in record.getMessage()] == [
            f"viewer=browser: the viewer has ended; {log} says why"
        ]
    assert not (tmp_path / "live.pth").exists()


def test_a_show_takes_up_what_training_hands_over(experiment: Experiment, tmp_path: Path) -> None:
    from dualfid_robot.runs.checkpoint import save_checkpoint

    def save(bias: float, iteration: int, **metrics: float) -> None:
        policy = experiment.make_policy()
        with torch.no_grad():
            policy.actor.output_layer.bias.fill_(bias)
        state = {"policy": policy.state_dict(), "iteration": iteration, "metrics": metrics}
        save_checkpoint(path, identity(experiment) | state)
        os.utime(path, (iteration, iteration))

    path = tmp_path / "live.pth"
    save(0.0, 1)
    show = CheckpointShow(path, load_checkpoint(path), {"mujoco": dict(experiment.high_engine)}, n=2, follow=True)
    try:
        show.begin()
        show.step()
        assert show.news() == "" and show._policy.actor.output_layer.bias.item() == 0.0
        save(0.25, 2)
        show._looked_at -= 1.0
        show.step()
        assert show.news() == "training: iteration 2, no episode has ended yet"
        save(0.5, 3, **{"return/high": 12.0})
        show._looked_at -= 1.0
        step = show.step()
        assert show._policy.actor.output_layer.bias.item() == 0.5
        assert show.news() == "training: iteration 3, return high 12"
        assert step.qpos.shape == (2, 2) and len(step.rewards) > 1
        assert show.policies == ("adapted", "base", "dial")
        show.choose_policy("dial", 0.5)
        assert len([line for _ in range(500) for line in show.step().lines]) >= 2
    finally:
        show.close()


def test_which_runs_are_watched(compose_config: Callable[..., DictConfig]) -> None:
    pytest.importorskip("mjviser")
    assert not wants_page(compose_config(*SMALL))
    assert wants_page(compose_config(*SMALL, "headless=False"))
    assert wants_page(compose_config(*SMALL, "viewer=browser"))
    with pytest.raises(ConfigError, match=r"viewer=native: allowed are \['none', 'browser'\]"):
        wants_page(compose_config(*SMALL, "viewer=native"))


def test_the_port_is_the_next_free_one(experiment: Experiment) -> None:
    import socket

    from dualfid_robot.train.viewer import _free_port

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert _free_port("127.0.0.1", port) > port
    with pytest.raises(ConfigError, match=r"viewer_host=192\.0\.2\.1"):
        _free_port("192.0.2.1", 8080)
