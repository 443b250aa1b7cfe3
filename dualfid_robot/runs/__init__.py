"""A run's folder: its checkpoints, its log, and how a run goes on."""
