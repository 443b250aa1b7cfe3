"""`python -m dualfid_robot.isaacgym [options] script.py …`: run a script that imports `isaacgym`."""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path

from dualfid_robot.errors import ConfigError
from dualfid_robot.settings import require_integer, require_number


def main(arguments: list[str] | None = None) -> None:
    """Read the options, provide the modules, and run the script as `__main__` with its own arguments."""
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    try:
        _start(options)
        sys.argv = [options.script, *options.arguments]
        sys.path[0] = str(Path(options.script).resolve().parent)
        runpy.run_path(options.script, run_name="__main__")
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dualfid_robot.isaacgym",
        description="Run a script that imports isaacgym on an engine of dualfid_robot (docs/isaacgym.md).",
    )
    parser.add_argument("--engine", default="mujoco", help="a file in cfg/simulator (default: mujoco)")
    parser.add_argument("--threads", type=int, default=0, help="threads of the engine; 0 takes all CPUs")
    parser.add_argument(
        "--armature-floor",
        type=float,
        default=0.01,
        help="least armature of joints under explicit efforts, kg m² (default: 0.01)",
    )
    parser.add_argument(
        "--feet",
        default="foot,ankle",
        help="parts of the names of bodies that keep contacts in an engine with reduced contacts",
    )
    parser.add_argument("--replace", action="store_true", help="stand in for NVIDIA's isaacgym where it is installed")
    parser.add_argument("script", help="their script, such as legged_gym/scripts/train.py")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its own arguments")
    return parser.parse_args(arguments)


def _start(options: argparse.Namespace) -> None:
    """Set up the session, say what runs, and provide the modules."""
    from dualfid_robot.isaacgym.provide import provide
    from dualfid_robot.isaacgym.session import CURRENT, check_feet
    from dualfid_robot.isaacgym.simulation import announce, engine_settings

    require_integer("--threads", options.threads, 0)
    require_number("--armature-floor", options.armature_floor, 0.0, 100.0)
    CURRENT.engine, CURRENT.threads = options.engine, options.threads
    CURRENT.armature_floor, CURRENT.feet = options.armature_floor, tuple(options.feet.split(","))
    check_feet("--feet", CURRENT.feet)
    engine_settings(CURRENT)  # an unknown engine is refused before anything is said
    if not Path(options.script).is_file():
        raise ConfigError(f"script={options.script}: no such file")
    announce(options.script, CURRENT)
    provide(options.replace)


if __name__ == "__main__":
    main()
