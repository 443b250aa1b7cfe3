"""Camera sensors, drawn by MuJoCo from the state of any engine. What is drawn are collision shapes."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field

import mujoco
import numpy as np

from dualfid_robot.isaacgym.actors import Environment
from dualfid_robot.isaacgym.parameters import CameraProperties
from dualfid_robot.isaacgym.session import not_provided
from dualfid_robot.isaacgym.simulation import Simulation
from dualfid_robot.isaacgym.transforms import Quat, Transform, Vec3


@dataclass
class Camera:
    """A camera of an environment.

    Attributes:
        properties: its image's size and field of view.
        pose: in the world, or of its position relative to a body. The camera looks along its x axis and never rolls.
        body: that it follows, or None.
    """

    properties: CameraProperties
    pose: Transform = field(default_factory=Transform)
    body: int | None = None


class Cameras:
    """The cameras of one simulation."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._cameras: dict[tuple[int, int], Camera] = {}
        self._renderers: dict[tuple[int, int], tuple[mujoco.Renderer, mujoco.MjData]] = {}

    def create(self, env: Environment, properties: CameraProperties) -> int:
        """A camera's handle in its environment."""
        handle = sum(number == env.number for number, _ in self._cameras)
        self._cameras[env.number, handle] = Camera(copy.deepcopy(properties))
        return handle

    def attach(self, env: Environment, handle: int, body: int, pose: Transform, mode: int) -> None:
        """Let a camera follow a body's position."""
        if mode != 0:
            raise not_provided("attach_camera_to_body with FOLLOW_TRANSFORM")
        camera = self._cameras[env.number, handle]
        camera.body, camera.pose = body, copy.deepcopy(pose)

    def place(self, env: Environment, handle: int, position: Vec3, target: Vec3) -> None:
        """Put a camera at a place in the world, looking at another."""
        camera = self._cameras[env.number, handle]
        ahead = target - position
        turn = math.atan2(ahead.y, ahead.x), -math.atan2(ahead.z, math.hypot(ahead.x, ahead.y))
        camera.body, camera.pose = None, Transform(copy.copy(position), Quat.from_euler_zyx(0.0, turn[1], turn[0]))

    def image(self, env: Environment, handle: int) -> np.ndarray:
        """What a camera sees now: (height, 4 width) uint8, red, green, blue and 255.

        Raises:
            NotProvided: MuJoCo finds no OpenGL on this machine.
        """
        camera, simulator = self._cameras[env.number, handle], self._simulation.simulator
        size = camera.properties.height, camera.properties.width
        if size not in self._renderers:
            model = copy.copy(simulator.robot.model)
            model.vis.global_.offheight, model.vis.global_.offwidth = size
            model.vis.global_.fovy = _vertical(camera.properties)
            try:
                self._renderers[size] = mujoco.Renderer(model, *size), mujoco.MjData(model)
            except Exception as error:  # each of MuJoCo's OpenGL back ends raises errors of its own
                raise not_provided("get_camera_image", f"MuJoCo cannot draw here ({error})") from error
        renderer, data = self._renderers[size]
        data.qpos[:] = simulator.qpos[env.number].cpu().numpy()
        mujoco.mj_forward(simulator.robot.model, data)
        renderer.update_scene(data, self._view(camera, data))
        colours = renderer.render()
        return np.concatenate([colours, np.full((*size, 1), 255, np.uint8)], -1).reshape(size[0], -1)

    def _view(self, camera: Camera, data: mujoco.MjData) -> mujoco.MjvCamera:
        """MuJoCo's free camera at a camera's place: it looks at a point one metre ahead."""
        at = Vec3() if camera.body is None else Vec3(*data.xpos[1 + camera.body])
        ahead = camera.pose.r.rotate(Vec3(1, 0, 0))
        view = mujoco.MjvCamera()
        view.lookat, view.distance = list(at + camera.pose.p + ahead), 1.0
        view.azimuth = math.degrees(math.atan2(ahead.y, ahead.x))
        view.elevation = math.degrees(math.asin(max(-1.0, min(1.0, ahead.z))))
        return view


def _vertical(properties: CameraProperties) -> float:
    """Vertical field of view, degrees."""
    half = math.tan(math.radians(properties.horizontal_fov) / 2) * properties.height / properties.width
    return math.degrees(2 * math.atan(half))
