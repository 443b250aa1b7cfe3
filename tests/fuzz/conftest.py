"""A small run and its checkpoint, and Hypothesis' profiles: the suite looks at a few examples,
`--hypothesis-profile=thousand` at as many."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from small import SMALL

from dualfid_robot.config.engines import compose_config, hydra_apart
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.train.trainer import Trainer

settings.register_profile("thousand", max_examples=1000, deadline=None)


@pytest.fixture(scope="session")
def trainer() -> Iterator[Trainer]:
    with hydra_apart():
        made = Trainer(Experiment(compose_config(SMALL)))
    made.iterate()
    yield made
    made.close()


@pytest.fixture(scope="session")
def whole(trainer: Trainer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoints") / "whole.pth"
    trainer.save(path)
    return path
