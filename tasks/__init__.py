"""One file per task. A task imports `dualfid_robot.envs` and nothing else of the package."""
