"""Make the moving pictures of README and of the gallery, from the policies that ship with the program.

    python benchmarks/gallery.py [--tasks Ant Anymal] [--seconds 4]

Writes docs/gallery/<task>.webp for each task, and docs/gallery/robots.webp, in which some stand side by side.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from dualfid_robot.config.machine import set_environment

set_environment()  # what MuJoCo draws with

from PIL import Image, ImageSequence  # noqa: E402

from dualfid_robot.config.engines import simulator_settings  # noqa: E402
from dualfid_robot.onboard.runtime import ExportedPolicy  # noqa: E402
from dualfid_robot.play.choice import POLICIES, shipped_policies  # noqa: E402
from dualfid_robot.play.engines import own_settings  # noqa: E402
from dualfid_robot.play.export_show import ExportShow  # noqa: E402
from dualfid_robot.robots.model import RobotModel  # noqa: E402
from dualfid_robot.view.scene import Scene  # noqa: E402
from dualfid_robot.view.video import renderer  # noqa: E402

OUT = Path(__file__).parents[1] / "docs" / "gallery"
TOGETHER = ("Ant", "Humanoid", "Anymal", "AnymalTerrain", "Quadcopter", "FrankaCabinet", "BallBalance", "Cartpole")
SIZE = (320, 240)
RATE = 15  # pictures a second
SKIPPED = 0.5  # s at the beginning that are not shown


def main() -> None:
    """Draw what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="*", default=shipped_policies(), metavar="TASK")
    parser.add_argument("--seconds", type=float, default=4.0)
    arguments = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    for task in arguments.tasks:
        write(pictures(task, arguments.seconds), OUT / f"{task}.webp")
    write(side_by_side(), OUT / "robots.webp")


def side_by_side() -> np.ndarray:
    """The pictures of all tasks that have some, in one row or two, as long as the shortest."""
    found = [read(OUT / f"{task}.webp") for task in TOGETHER if (OUT / f"{task}.webp").is_file()]
    length = min(len(frames) for frames in found)
    found = [frames[:length] for frames in found]
    columns = len(found) if len(found) < 4 else len(found) // 2
    rows = [np.concatenate(found[k : k + columns], 2) for k in range(0, columns * (len(found) // columns), columns)]
    return np.concatenate(rows, 1)


def read(path: Path) -> np.ndarray:
    """(frames, height, width, 3) of a moving picture."""
    with Image.open(path) as picture:
        return np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(picture)])


def pictures(task: str, seconds: float) -> np.ndarray:
    """(frames, height, width, 3) of a task's shipped policy in MuJoCo."""
    policy = ExportedPolicy(POLICIES / task)
    metadata = policy.metadata
    robot = RobotModel(policy.folder / metadata.robot.file, metadata.robot.feet)
    settings = simulator_settings("mujoco", {"simulators": metadata.training.calibration})
    show = ExportShow(policy, robot, {"mujoco": own_settings(settings, metadata)})
    scene = Scene(robot)
    camera = renderer(scene, SIZE, "gallery")
    frames = []
    qpos = show.begin()
    for number in range(round((SKIPPED + seconds) * RATE)):
        for _ in range(round((number + 1) / RATE / show.period) - round(number / RATE / show.period)):
            qpos = show.step().qpos
        if number >= SKIPPED * RATE:
            scene.place(qpos, 1.0 / RATE)
            camera.update_scene(scene.data, scene.camera)
            frames.append(camera.render())
    camera.close()
    show.close()
    return np.stack(frames)


def write(frames: np.ndarray, path: Path) -> None:
    """Write a moving picture that browsers and GitHub show."""
    first, *others = [Image.fromarray(frame) for frame in frames]
    first.save(path, save_all=True, append_images=others, duration=1000 // RATE, loop=0, quality=60, method=4)
    print(f"{os.path.relpath(path)}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
