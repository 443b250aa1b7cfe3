"""Importing this composes a configuration, so that processes forked afterwards have all that Hydra loads for one."""

from dualfid_robot.config.engines import compose_config, hydra_apart

with hydra_apart():
    compose_config(["task=Cartpole"])
