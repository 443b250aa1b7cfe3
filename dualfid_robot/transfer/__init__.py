"""Transfer between simulators: policies × engines × perturbations (docs/transfer.md)."""
