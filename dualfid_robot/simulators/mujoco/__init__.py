"""MuJoCo on CPUs."""
