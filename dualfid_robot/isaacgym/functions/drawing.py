"""Cameras, and a viewer that there is not."""

from __future__ import annotations

from typing import Any

import numpy as np

from dualfid_robot.isaacgym.actors import (
    Environment,
)
from dualfid_robot.isaacgym.functions.handles import Sim
from dualfid_robot.isaacgym.parameters import (
    CameraProperties,
)
from dualfid_robot.isaacgym.session import not_provided, say_once
from dualfid_robot.isaacgym.transforms import Transform, Vec3

_IMAGE_COLOR = 0


class DrawingFunctions:
    """Functions about what is seen."""

    def create_camera_sensor(self, env: Environment, properties: CameraProperties) -> int:
        return env.sim.cameras.create(env, properties)

    def attach_camera_to_body(self, camera: int, env: Environment, body: int, pose: Transform, mode: int) -> None:
        env.sim.cameras.attach(env, camera, body, pose, mode)

    def set_camera_location(self, camera: int, env: Environment, position: Vec3, target: Vec3) -> None:
        env.sim.cameras.place(env, camera, position, target)

    def render_all_camera_sensors(self, sim: Sim) -> None:
        """Nothing: an image is drawn when it is asked for."""

    def get_camera_image(self, sim: Sim, env: Environment, camera: int, image_type: int) -> np.ndarray:
        if image_type != _IMAGE_COLOR:
            raise not_provided("get_camera_image of another type than IMAGE_COLOR")
        return sim.cameras.image(env, camera)

    # Windows, of which there are none.

    def create_viewer(self, sim: Sim, properties: Any) -> None:
        say_once("there is no viewer: the script runs as if headless")

    def viewer_camera_look_at(self, viewer: Any, env: Any, position: Vec3, target: Vec3) -> None:
        pass

    def subscribe_viewer_keyboard_event(self, viewer: Any, key: int, action: str) -> None:
        pass

    def subscribe_viewer_mouse_event(self, viewer: Any, button: int, action: str) -> None:
        pass

    def query_viewer_has_closed(self, viewer: Any) -> bool:
        return False

    def query_viewer_action_events(self, viewer: Any) -> list[Any]:
        return []

    def step_graphics(self, sim: Sim) -> None:
        pass

    def draw_viewer(self, viewer: Any, sim: Sim, render_collision: bool = False) -> None:
        pass

    def sync_frame_time(self, sim: Sim) -> None:
        pass

    def poll_viewer_events(self, viewer: Any) -> None:
        pass

    def destroy_viewer(self, viewer: Any) -> None:
        pass

    def clear_lines(self, viewer: Any) -> None:
        pass

    def add_lines(self, viewer: Any, env: Any, count: int, vertices: Any, colors: Any) -> None:
        say_once("debug lines are not drawn")
