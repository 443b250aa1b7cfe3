"""Tasks written against NVIDIA's closed `isaacgym` package, run unmodified on the engines of this project.

`python -m dualfid_robot.isaacgym path/to/their/train.py …` provides modules of that name for one process. What they
provide, and where they differ from PhysX, is in docs/isaacgym.md.
"""
