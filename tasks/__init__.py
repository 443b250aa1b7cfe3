"""One file per task; a task imports `dualfid_robot.envs` and nothing else of the package."""
