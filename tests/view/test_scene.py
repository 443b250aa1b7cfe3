"""Scenes: every robot is in the picture, whatever it does; the floor is grey; robots stand apart and move alike."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import mujoco
import numpy as np
import pytest

from dualfid_robot.config.machine import ASSETS
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.view.scene import Scene
from dualfid_robot.view.video import Video, renderer, video_size

FILES = sorted(path.name for path in ASSETS.glob("*.xml") if path.name != "anymal_robot.xml")
SIZE = (320, 240)


def drawing(scene: Scene) -> mujoco.Renderer:
    try:
        return renderer(scene, SIZE, "test")
    except ConfigError as error:
        pytest.skip(str(error))


def in_view(scene: Scene) -> np.ndarray:
    """(geoms, 2) where the middles of all geoms that move are in a picture; ±1 are its edges."""
    view = mujoco.MjvScene(scene.model, 1000)
    option, everything = mujoco.MjvOption(), mujoco.mjtCatBit.mjCAT_ALL
    mujoco.mjv_updateScene(scene.model, scene.data, option, None, scene.camera, everything, view)
    eyes = view.camera
    place = 0.5 * (np.array(eyes[0].pos) + np.array(eyes[1].pos))
    forward, up = np.array(eyes[0].forward), np.array(eyes[0].up)
    seen = scene.data.geom_xpos[scene.model.geom_bodyid > 0] - place
    depth = seen @ forward
    assert (depth > scene.model.vis.map.znear * scene.model.stat.extent).all()  # nothing is cut off
    half = math.tan(math.radians(0.5 * scene.model.vis.global_.fovy)) * depth
    return np.stack((seen @ np.cross(forward, up) / (half * SIZE[0] / SIZE[1]), seen @ up / half), 1)


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("file", FILES)
def test_every_robot_is_in_the_picture(file: str, n: int) -> None:
    robot = RobotModel(ASSETS / file)
    scene = Scene(robot, n)
    assert np.abs(in_view(scene)).max() < 1.0
    # They walk away at 2 m/s, each in its own direction, and are followed.
    free = robot.model.jnt_qposadr[robot.model.jnt_type == mujoco.mjtJoint.mjJNT_FREE]
    qpos = np.tile(robot.model.qpos0, (n, 1))
    for _ in range(90):
        for column in free:
            qpos[:, column] += np.cos(np.arange(n)) * 2.0 / 30.0
            qpos[:, column + 1] += np.sin(np.arange(n)) * 2.0 / 30.0
        scene.place(qpos, 1.0 / 30.0)
        assert np.abs(in_view(scene)).max() < 1.0
        np.testing.assert_array_equal(scene.data.xpos[scene.focus], scene.camera.lookat)
    # A new episode is seen at once, not after a flight.
    scene.place(np.tile(robot.model.qpos0, (n, 1)) + 0.0, 1.0 / 30.0)
    assert np.abs(in_view(scene)).max() < 1.0


@pytest.mark.parametrize("file", FILES)
def test_the_robot_is_seen_and_the_floor_is_grey(file: str) -> None:
    scene = Scene(RobotModel(ASSETS / file))
    with drawing(scene) as camera:
        camera.update_scene(scene.data, scene.camera)
        picture = camera.render().astype(int)
        camera.enable_segmentation_rendering()
        camera.update_scene(scene.data, scene.camera)
        ids, kinds = np.moveaxis(camera.render(), 2, 0)
    geom = kinds == mujoco.mjtObj.mjOBJ_GEOM
    body = np.where(geom, scene.model.geom_bodyid[np.where(geom, ids, 0)], -1)
    assert (body > 0).mean() > 0.02
    floor = picture[body == 0]
    assert len(floor) > 0.2 * body.size
    assert np.median(np.ptp(floor, axis=1)) < 12  # of 255, between red, green and blue
    assert (body == -1)[0].all()  # sky along the upper edge


@pytest.mark.parametrize("file", ["ant.xml", "cartpole.xml", "franka_cabinet.xml", "ball_balance.xml"])
def test_robots_stand_apart_and_move_alike(file: str) -> None:
    robot = RobotModel(ASSETS / file)
    scene = Scene(robot, 5)
    alone = mujoco.MjData(robot.model)
    generator = np.random.default_rng(0)
    states = np.tile(robot.model.qpos0, (5, 1))
    mujoco.mj_integratePos(robot.model, states[2], generator.normal(0, 0.1, robot.model.nv), 1.0)
    scene.place(states, 0.0)
    moving = scene.data.geom_xpos[scene.model.geom_bodyid > 0].reshape(5, -1, 3)
    for number in range(5):
        alone.qpos[:] = states[number]
        mujoco.mj_kinematics(robot.model, alone)
        shift = moving[number] - alone.geom_xpos[robot.model.geom_bodyid > 0]
        np.testing.assert_allclose(shift - shift[0], 0.0, atol=1e-6)
        assert abs(shift[0, 2]) < 1e-6
    middles = moving.mean(1)[:, :2]
    apart = np.linalg.norm(middles[:, None] - middles, axis=2)[~np.eye(5, dtype=bool)]
    assert apart.min() > 0.4


def test_a_file_keeps_its_own_sky_light_and_floor(tmp_path: Path) -> None:
    (tmp_path / "own.xml").write_text("""
    <mujoco>
      <asset>
        <texture name="night" type="skybox" builtin="flat" rgb1="0 0 0" width="8" height="8"/>
        <material name="grass" rgba="0 1 0 1"/>
      </asset>
      <worldbody>
        <light name="lamp" pos="0 0 3"/>
        <geom type="plane" size="0 0 1" material="grass"/>
        <body pos="0 0 1"><freejoint/><geom size="0.1"/></body>
      </worldbody>
    </mujoco>""")
    model = Scene(RobotModel(tmp_path / "own.xml")).model
    assert (model.nlight, model.ntex, model.nmat) == (1, 1, 1)


def test_the_size_of_a_video(tmp_path: Path) -> None:
    robot = RobotModel(ASSETS / "cartpole.xml")
    drawing(Scene(robot)).close()
    import imageio.v3 as imageio

    with Video(tmp_path / "a.mp4", robot, 1 / 60, "video", (128, 96), 2) as video:
        for _ in range(9):
            video.show(np.tile(robot.model.qpos0, (2, 1)))
    assert imageio.imread(tmp_path / "a.mp4").shape == (5, 96, 128, 3)


def test_a_disk_that_fills_is_named_and_no_half_video_stays(tmp_path: Path) -> None:
    drawing(Scene(RobotModel(ASSETS / "cartpole.xml"))).close()
    code = """
import errno, resource, signal
import numpy as np
from pathlib import Path
from dualfid_robot.config.machine import ASSETS, set_environment
set_environment()
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.view.video import Video
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
robot = RobotModel(ASSETS / "cartpole.xml")
for name in ("a.mp4", "a.gif"):
    try:
        with Video(Path(name), robot, 1 / 30, "video", (128, 96)) as video:
            for _ in range(9):
                video.show(robot.model.qpos0[None])
    except OSError as error:
        print(error.errno == errno.EFBIG, error.filename)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.stderr) == ("True a.mp4\nTrue a.gif\n", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [[640], 640, "640x480", [640, 481], [8, 480], [640, 480.0], [True, 480], [5000, 480]])
def test_a_wrong_size_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"video_size=.*two even numbers from 16 to 4096 are expected"):
        video_size("video_size", value)
    assert video_size("video_size", [640, 480]) == (640, 480)


def test_another_format_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("imageio")
    with pytest.raises(ConfigError, match=r"video=a\.xyz: a video's name ends in \.mp4 or \.gif"):
        Video(tmp_path / "a.xyz", RobotModel(ASSETS / "cartpole.xml"), 1 / 60, "video=a.xyz")
