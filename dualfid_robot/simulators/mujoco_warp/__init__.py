"""MuJoCo on a GPU."""
