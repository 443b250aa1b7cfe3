"""Videos of a policy while it is being trained."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from dualfid_robot.atomic import remove_partial
from dualfid_robot.config.command_line import describe
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.errors import ConfigError
from dualfid_robot.evaluate.films import FilmSettings
from dualfid_robot.policies.actor_critic import DualActorCritic
from dualfid_robot.settings import require_integer
from dualfid_robot.view.video import check_drawing

logger = logging.getLogger(__name__)

FILMS = "videos"  # in a run's folder


class TrainingFilms:
    """Films an episode of the adapted policy in E_high every so many iterations.

    The episode is played in an environment of its own. So the run is the same with and without it. It costs time that
    no cost counts. A film that fails is an error in the log, and training goes on.
    """

    def __init__(
        self,
        experiment: Experiment,
        policy: DualActorCritic,
        folder: Path,
        publish: Callable[[Path, dict[str, float]], None],
    ) -> None:
        """Check the settings, and that something can be drawn.

        Args:
            experiment: the run's, with capture_video=True.
            policy: what is trained.
            folder: the run's.
            publish: takes each film and the metrics of its iteration.

        Raises:
            ConfigError: a setting is wrong, a package is missing, or there is no OpenGL.
        """
        self._settings = FilmSettings.of(experiment.settings)
        self._every = experiment.settings["capture_video_freq"]
        require_integer("capture_video_freq", self._every, 1)
        check_drawing(experiment.robot, self._settings.size, "capture_video=True")
        self._experiment, self._policy, self._publish = experiment, policy, publish
        self._folder = folder / FILMS
        self._folder.mkdir(exist_ok=True)
        remove_partial(self._folder, "*")

    def update(self, metrics: dict[str, float]) -> None:
        """Film, where it is time: after an iteration with these metrics."""
        iteration = int(metrics["iteration"])
        if iteration % self._every != 0:
            return
        experiment = self._experiment
        path = self._folder / f"iteration_{iteration:06d}.mp4"
        try:
            self._settings.record(self._act, experiment.make_pool(experiment.high_engine, 1, experiment.seed), path)
            self._publish(path, metrics)
        except (ConfigError, OSError) as error:
            logger.error("capture_video=True: %s", describe(error))

    def _act(self, observations: Tensor) -> Tensor:
        """The adapted policy's mean action, by the network where it is: the learner's device."""
        device = self._experiment.rl_device
        return self._policy.action_mean(observations.to(device), "adapted").to(observations.device)
