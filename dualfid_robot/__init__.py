"""Robot policies trained in two simulators at once."""

import os
import sys

__version__ = "0.1.0"

# MuJoCo picks its OpenGL when it is imported. Without a display only EGL can draw, and videos are all that we draw.
if sys.platform == "linux" and "DISPLAY" not in os.environ:
    os.environ.setdefault("MUJOCO_GL", "egl")
