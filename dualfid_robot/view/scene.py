"""Robots as a person sees them. They stand in the middle of a plain floor under a sky, and the light casts shadows."""

from __future__ import annotations

import math

import mujoco
import numpy as np

from dualfid_robot.robots.model import RobotModel

SKY = ((0.45, 0.62, 0.85), (0.88, 0.92, 0.97))
"""Colours (red, green, blue) of the sky above and at the horizon."""

_FIELD_OF_VIEW = 40.0  # degrees, vertical
_AZIMUTH, _ELEVATION = 125.0, -18.0  # degrees, where the file has no camera: from the front and the robot's right
_FOLLOW = np.array([0.12, 0.12, 0.4])  # s, time constants with which the camera follows along x, y and z
_MARGIN = 1.15  # of the distance from which all robots just fit
_SUN_SIDE, _SUN_HEIGHT = -40.0, 65.0  # degrees: from the camera to its left, and above the horizon
_FOCUS = "dualfid/focus"
_GROUND = (mujoco.mjtGeom.mjGEOM_PLANE, mujoco.mjtGeom.mjGEOM_HFIELD)


class Scene:
    """n robots side by side in one MuJoCo model that is looked at and never simulated.

    A sky, a light and a floor's material are added where the file has none. Robots on a plane stand on a grid, since
    each has a world of its own. On a height field each stays where it is.

    Attributes:
        model: the n robots; its `qpos` is theirs, one after another.
        data: its state, as `place` left it.
        n: number of robots.
        reach: half the diagonal of the box around one robot, m.
        camera: follows the robots, and is as far away as it takes to see all of them.
        focus: the number of a body that is where the camera looks, for viewers that follow a body.
    """

    def __init__(self, robot: RobotModel, n: int = 1) -> None:
        """Build the scene, with the robots in their initial state.

        Args:
            robot: what is shown.
            n: how many of them.
        """
        self.n = n
        self._offset, self.reach, box = _extent(robot.model)
        on_terrain = mujoco.mjtGeom.mjGEOM_HFIELD in robot.model.geom_type
        places = np.zeros((n, 2)) if on_terrain else _grid(n, box)
        self.camera = _camera(robot.model)
        self._sun = _sun(self.camera.azimuth)
        self.model = _compile(robot, places, self._sun)
        self.data = mujoco.MjData(self.model)
        self.focus: int = self.model.body(_FOCUS).id
        free = np.flatnonzero(robot.model.jnt_type == mujoco.mjtJoint.mjJNT_FREE)
        columns = robot.model.jnt_qposadr[free]
        self._shift = np.zeros((n, robot.model.nq))
        self._shift[:, columns], self._shift[:, columns + 1] = places[:, :1], places[:, 1:]
        self._moving = self.model.geom_bodyid > 0
        self._owner = (np.arange(self._moving.sum()) * n) // max(int(self._moving.sum()), 1)
        self.camera.lookat[:] = np.nan
        self.place(np.tile(robot.model.qpos0, (n, 1)), 0.0)

    def place(self, qpos: np.ndarray, period: float) -> None:
        """Put the robots into a state, and let the camera and the light follow them.

        Args:
            qpos: (n, nq).
            period: s since the last state.
        """
        self.data.qpos[:] = (qpos + self._shift).ravel()
        mujoco.mj_forward(self.model, self.data)
        centers = self.centers()
        low, high = centers.min(0), centers.max(0)
        radius = 0.5 * float(np.linalg.norm(high - low)) + self.reach
        distance = _MARGIN * radius / math.sin(math.radians(0.5 * _FIELD_OF_VIEW))
        middle = 0.5 * (low + high)
        jump = not np.linalg.norm(middle - self.camera.lookat) < 2.0 * radius  # also at the beginning
        kept = np.zeros(3) if jump else np.exp(-period / _FOLLOW)
        self.camera.lookat[:] = middle + kept * np.where(jump, 0.0, self.camera.lookat - middle)
        self.camera.distance = distance + kept[2] * (0.0 if jump else self.camera.distance - distance)
        self.data.xpos[self.focus] = self.camera.lookat
        self.data.light_xpos[:] = self.camera.lookat + 3.0 * radius * self._sun
        self.model.stat.extent = 3.0 * radius  # of which planes of clipping and the shadows' map are multiples

    def centers(self) -> np.ndarray:
        """(n, 3) the middle of each robot's geoms."""
        positions = self.data.geom_xpos[self._moving]
        return np.stack([positions[self._owner == robot].mean(0) for robot in range(self.n)]) + self._offset


def _extent(model: mujoco.MjModel) -> tuple[np.ndarray, float, np.ndarray]:
    """The extent of a robot in its initial state, in m.

    Returns:
        The robot's middle (3,) from the mean of its geoms, and half the diagonal of its box. The third item is the
        ground (2,) along x and y that the robot and its built surroundings take.
    """
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    own = model.geom_bodyid > 0
    half = (np.abs(data.geom_xmat.reshape(-1, 3, 3)) @ model.geom_aabb[:, 3:, None])[..., 0]
    low, high = data.geom_xpos - half, data.geom_xpos + half
    body = np.stack((low[own].min(0), high[own].max(0)))
    reach = 0.5 * float(np.linalg.norm(body[1] - body[0]))
    built = ~np.isin(model.geom_type, _GROUND) & (model.geom_rbound < 10.0 * reach)
    box = high[built].max(0) - low[built].min(0)
    return body.mean(0) - data.geom_xpos[own].mean(0), reach, box[:2]


def _grid(n: int, box: np.ndarray) -> np.ndarray:
    """Places (n, 2) of n robots that take `box` (2,) each.

    The grid is the one closest to a square, and the first stays.
    """
    spacing = 1.5 * box + 0.3
    rows = min(range(1, n + 1), key=lambda k: (max(k * spacing[0], -(-n // k) * spacing[1]), k))
    columns = -(-n // rows)
    row, column = np.divmod(np.arange(n), columns)
    places = np.stack((row, column), 1) * spacing
    return places


def _compile(robot: RobotModel, places: np.ndarray, sun: np.ndarray) -> mujoco.MjModel:
    """The scene's model: the file's own, with the other robots attached to it."""
    spec = robot.spec()
    for key in list(spec.keys):
        spec.delete(key)
    for number, place in enumerate(places[1:], 1):
        other = robot.spec()
        for element in [*other.worldbody.lights, *other.worldbody.cameras, *other.keys]:
            other.delete(element)
        for geom in [geom for geom in other.worldbody.geoms if geom.type in _GROUND]:
            other.delete(geom)
        spec.attach(other, prefix=f"{number}/", frame=spec.worldbody.add_frame(pos=(*place, 0.0)))
    spec.worldbody.add_body(name=_FOCUS, mocap=True)
    _dress(spec, sun)
    return spec.compile()


def _dress(spec: mujoco.MjSpec, sun: np.ndarray) -> None:
    """Add what the file leaves out for a picture: sky, light and floor; and sizes that suit the robot."""
    flags = mujoco.mjtDisableBit.mjDSBL_CONTACT | mujoco.mjtDisableBit.mjDSBL_CONSTRAINT
    spec.option.disableflags |= int(flags)  # nothing is simulated here
    visual = spec.visual
    visual.global_.offwidth, visual.global_.offheight, visual.global_.fovy = 4096, 4096, _FIELD_OF_VIEW
    visual.map.znear, visual.map.zfar, visual.map.shadowclip = 0.02, 60.0, 0.8
    visual.map.haze, visual.rgba.haze = 0.35, (0.86, 0.90, 0.95, 1.0)
    visual.quality.shadowsize = 2048
    visual.headlight.ambient, visual.headlight.diffuse, visual.headlight.specular = [0.42] * 3, [0.3] * 3, [0.05] * 3
    if not any(texture.type == mujoco.mjtTexture.mjTEXTURE_SKYBOX for texture in spec.textures):
        spec.add_texture(
            name="dualfid/sky",
            type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
            builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
            rgb1=SKY[0],
            rgb2=SKY[1],
            width=256,
            height=1536,
        )
    if not spec.lights:
        spec.worldbody.add_light(
            name="dualfid/sun",
            type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
            dir=-sun,
            diffuse=(0.6, 0.6, 0.58),
            specular=(0.15, 0.15, 0.15),
            castshadow=True,
        )
    bare = [g for g in spec.worldbody.geoms if g.type == mujoco.mjtGeom.mjGEOM_PLANE and not g.material]
    if bare:
        spec.add_texture(
            name="dualfid/floor",
            type=mujoco.mjtTexture.mjTEXTURE_2D,
            builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
            rgb1=(0.78, 0.79, 0.80),
            rgb2=(0.70, 0.71, 0.72),
            width=512,
            height=512,
        )
        material = spec.add_material(name="dualfid/floor", texuniform=True, texrepeat=(0.5, 0.5), specular=0.1)
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "dualfid/floor"
    for geom in bare:
        geom.material, geom.rgba = "dualfid/floor", np.ones(4)


def _camera(model: mujoco.MjModel) -> mujoco.MjvCamera:
    """A free camera that looks in the direction of the file's first one, where it has one."""
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    camera.azimuth, camera.elevation = _AZIMUTH, _ELEVATION
    if model.ncam:
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        x, y, z = -data.cam_xmat[0].reshape(3, 3)[:, 2]
        camera.azimuth = math.degrees(math.atan2(y, x))
        camera.elevation = math.degrees(math.asin(z))
    return camera


def _sun(azimuth: float) -> np.ndarray:
    """The direction (3,) to the light.

    It is behind a camera that looks along `azimuth`. No floor is too close to it there for a clean shadow.
    """
    around, above = math.radians(azimuth + 180.0 + _SUN_SIDE), math.radians(_SUN_HEIGHT)
    flat = math.cos(above)
    return np.array((flat * math.cos(around), flat * math.sin(around), math.sin(above)))
