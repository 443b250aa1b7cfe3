"""Robot policies trained in two simulators at once."""

import os
import sys

__version__ = "0.1.0"

# Set before torch is loaded: its threads shall sleep between operations instead of spinning, because the simulators'
# threads and workers need the same cores, and when another process takes a core a spinning learner slows down tenfold.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# MuJoCo picks its OpenGL when it is imported. Without a display only EGL can draw, and videos are all that we draw.
if sys.platform == "linux" and "DISPLAY" not in os.environ:
    os.environ.setdefault("MUJOCO_GL", "egl")
