"""The browser's viewer of a run that goes on. It is a process of its own, which plays the policy as it is now."""

from __future__ import annotations

import logging
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from dualfid_robot.config.hints import setting
from dualfid_robot.config.output import plain_console
from dualfid_robot.errors import ConfigError
from dualfid_robot.policies.actor_critic import DualActorCritic
from dualfid_robot.runs.checkpoint import save_checkpoint

logger = logging.getLogger(__name__)

_LIVE, _LOG = "live.pth", "viewer.log"  # in the run's folder: the policy as it is, and what the process says
_PERIOD = 2.0  # s between two policies that are handed over


class RunViewer:
    """Starts `play.py … follow=True` and hands it the policy every few seconds.

    The run does not wait for it, and goes on without it when it fails.
    """

    def __init__(self, folder: Path, policy: DualActorCritic, identity: dict[str, Any], settings: Any) -> None:
        """Start the process.

        Args:
            folder: the run's.
            policy: what is trained.
            identity: of the run, as its checkpoints have it.
            settings: with viewer_host and viewer_port.
        """
        self._live, self._policy, self._identity = folder / _LIVE, policy, identity
        self._save({"iteration": 0, "metrics": {}})
        host, port = settings["viewer_host"], _free_port(settings["viewer_host"], settings["viewer_port"])
        texts = {"checkpoint": self._live, "viewer": "browser", "viewer_host": host}
        arguments = [shlex.split(setting(key, value))[0] for key, value in texts.items()]
        command = [sys.executable, "-m", "dualfid_robot", "play", *arguments, f"viewer_port={port}", "follow=True"]
        self._log = (folder / _LOG).open("w", encoding="utf-8")
        self._process = subprocess.Popen(
            command, stdout=self._log, stderr=self._log, stdin=subprocess.DEVNULL, start_new_session=True
        )
        self._announced = False
        plain_console().print(f"viewer: http://{host}:{port} in a few seconds", soft_wrap=True)

    def update(self, metrics: dict[str, float]) -> None:
        """Hand over the policy after an iteration with these metrics, where it is time."""
        if self._process.poll() is not None:
            if not self._announced:
                logger.warning("viewer=browser: the viewer has ended; %s says why", self._log.name)
                self._announced = True
        elif time.monotonic() - self._saved >= _PERIOD:
            self._save({"iteration": int(metrics["iteration"]), "metrics": metrics})

    def _save(self, state: dict[str, Any]) -> None:
        try:
            save_checkpoint(self._live, self._identity | state | {"policy": self._policy.state_dict()})
        except OSError as error:
            logger.warning("viewer=browser: %s", error)
        self._saved = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._log.close()
        self._live.unlink(missing_ok=True)


def _free_port(host: str, first: int) -> int:
    """The first port from `first` on that nobody listens at.

    Raises:
        ConfigError: the host is none of this machine, or no port is free.
    """
    for port in range(first, min(first + 100, 65536)):
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise ConfigError(f"viewer_host={host}, viewer_port={first}: no port from there on is free")
