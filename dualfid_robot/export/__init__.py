"""From a checkpoint to files for a robot."""
