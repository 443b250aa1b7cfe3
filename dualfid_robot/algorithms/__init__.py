"""The update of both policies, what is measured for it, and the split between the simulators."""
