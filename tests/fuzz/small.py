"""The settings of a small run."""

SMALL = (
    *("task=Cartpole", "num_envs=4", "simulator/low=mujoco_reduced", "train.params.config.horizon_length=4"),
    *("train.params.config.minibatch_size=16", "train.params.network.mlp.units=[4]"),
    *("simulator.low.mujoco_reduced.threads=1", "simulator.high.threads=1"),
)
