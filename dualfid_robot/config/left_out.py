"""Engines that a policy is evaluated in and was not trained in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dualfid_robot.config.experiment import Experiment
from dualfid_robot.errors import ConfigError
from dualfid_robot.simulators.registry import engine_class


def trained_engines(experiment: Experiment) -> dict[str, Mapping[str, Any]]:
    """Settings of the engines that a run ever gives an environment, by the name of their section."""
    allocation = experiment.allocation
    used = {"low": allocation.rho_max > 0.0, "high": allocation.rho_min < 1.0}
    return {where: engine for where, engine in experiment.engines.items() if used[where.split(".")[1]]}


def home_engine(experiment: Experiment) -> Mapping[str, Any]:
    """Where a run's policy belongs: E_high, or the first engine of E_low for a run that never uses E_high."""
    trained = trained_engines(experiment)
    return trained.get("simulator.high", next(iter(trained.values())))


def require_left_out(key: str, engine: Mapping[str, Any], experiment: Experiment) -> None:
    """Raise ConfigError where a run trains in an engine, at whatever fidelity, that it should never have seen.

    Args:
        key: how the error calls the setting that names the engine.
        engine: its settings.
        experiment: the run.
    """
    for where, trained in trained_engines(experiment).items():
        if _physics(trained["engine"]) == _physics(engine["engine"]):
            raise ConfigError(f"{key}={engine['name']}: cannot be left out, {where} trains in {trained['name']}")


def _physics(engine: str) -> str:
    """The engine whose equations an engine solves: another one's, where it is a port."""
    return engine_class(engine).PORT_OF or engine
