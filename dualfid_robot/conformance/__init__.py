"""What every engine is measured by, and the robots and bounds for it; `PROPERTIES` is the table of docs/engines.md.

The tests hold the residuals to the bounds in `cases.py`, and `benchmarks/engines.py` publishes them. References are
closed forms, MuJoCo's own functions of a state, or the same engine in other circumstances. A promise that no number
measures is an assertion.
"""

# Imported in the order of the table: each module adds its properties to it.
from dualfid_robot.conformance import mechanics, actuation, contact, file_order, readings, parameters, batch  # isort: skip  # noqa: F401
from dualfid_robot.conformance.properties import PROPERTIES

__all__ = ["PROPERTIES"]
