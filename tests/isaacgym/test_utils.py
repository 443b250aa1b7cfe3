"""torch_utils against SciPy, generators of terrain, command lines, transforms."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from dualfid_robot.errors import ConfigError
from dualfid_robot.isaacgym.api import gymapi, gymtorch, gymutil, terrain_utils, torch_utils
from dualfid_robot.isaacgym.ground import height_field, mesh
from dualfid_robot.isaacgym.gym import Gym
from dualfid_robot.isaacgym.parameters import HeightFieldParams, SimParams, TriangleMeshParams, UpAxis
from dualfid_robot.isaacgym.transforms import Quat, Transform, Vec3


def rotations(n: int, seed: int) -> tuple[torch.Tensor, Rotation]:
    """The same n rotations as a tensor (x, y, z, w) and in SciPy."""
    found = Rotation.random(n, rng=np.random.default_rng(seed))
    return torch.tensor(found.as_quat()), found


def test_rotations_are_those_of_scipy() -> None:
    (q, a), (p, b) = rotations(20, 1), rotations(20, 2)
    v = torch.randn(20, 3, dtype=torch.float64)
    assert torch_utils.quat_rotate(q, v).numpy() == pytest.approx(a.apply(v.numpy()))
    assert torch_utils.quat_rotate_inverse(q, v).numpy() == pytest.approx(a.inv().apply(v.numpy()))
    assert torch_utils.quat_apply(q, v).numpy() == pytest.approx(a.apply(v.numpy()))
    product = Rotation.from_quat(torch_utils.quat_mul(q, p).numpy())
    assert (product.inv() * a * b).magnitude() == pytest.approx(np.zeros(20), abs=1e-7)
    axis, angle = torch.randn(20, 3, dtype=torch.float64), torch.randn(20, dtype=torch.float64)
    expected = Rotation.from_rotvec((axis / axis.norm(dim=1, keepdim=True) * angle[:, None]).numpy())
    found = Rotation.from_quat(torch_utils.quat_from_angle_axis(angle, axis).numpy())
    assert (found.inv() * expected).magnitude() == pytest.approx(np.zeros(20), abs=1e-7)


def test_euler_angles_are_those_of_scipy() -> None:
    q, a = rotations(50, 3)
    found = torch.stack(torch_utils.get_euler_xyz(q), 1).numpy()
    assert (found >= 0).all() and (found < 2 * np.pi).all()
    assert found == pytest.approx(a.as_euler("ZYX")[:, ::-1] % (2 * np.pi), abs=1e-9)
    back = torch_utils.quat_from_euler_xyz(*torch.tensor(found).unbind(1)).numpy()
    assert (Rotation.from_quat(back).inv() * a).magnitude() == pytest.approx(np.zeros(50), abs=1e-7)


def test_transforms() -> None:
    (q, a), (p, b) = rotations(5, 4), rotations(5, 5)
    s, t, v = torch.randn(3, 5, 3, dtype=torch.float64).unbind(0)
    both = torch_utils.tf_apply(*torch_utils.tf_combine(q, s, p, t), v)
    assert both.numpy() == pytest.approx(a.apply(b.apply(v.numpy()) + t.numpy()) + s.numpy())
    there = torch_utils.tf_apply(q, s, v)
    assert torch_utils.tf_apply(*torch_utils.tf_inverse(q, s), there).numpy() == pytest.approx(v.numpy())


def test_torchscript_compiles_what_tasks_call() -> None:
    for name in ("quat_rotate_inverse", "quat_mul", "normalize", "get_euler_xyz", "torch_rand_float", "tensor_clamp"):
        torch.jit.script(getattr(torch_utils, name))


def test_a_star_import_brings_numpy() -> None:
    names: dict[str, Any] = {}
    exec("from dualfid_robot.isaacgym.api.torch_utils import *", names)
    assert names["np"] is np and names["torch"] is torch
    assert names["get_axis_params"](-1.0, 2) == [0.0, 0.0, -1.0]


def test_vectors_and_poses() -> None:
    _, a = rotations(1, 6)
    x, y, z, w = a.as_quat()[0]
    pose = Transform(Vec3(1, 2, 3), Quat(x, y, z, w))
    point = Vec3(0.4, -0.5, 0.6)
    assert tuple(pose.transform_point(point)) == pytest.approx(a.apply([0.4, -0.5, 0.6])[0] + [1, 2, 3])
    assert tuple((pose.inverse() * pose).p) == pytest.approx((0, 0, 0), abs=1e-12)
    turned = Quat.from_euler_zyx(0.3, -0.7, 2.0)
    assert tuple(turned) == pytest.approx(Rotation.from_euler("xyz", [0.3, -0.7, 2.0]).as_quat())
    assert turned.to_euler_zyx() == pytest.approx((0.3, -0.7, 2.0))


def tile(width: int = 80, length: int = 80) -> terrain_utils.SubTerrain:
    return terrain_utils.SubTerrain(width=width, length=length, vertical_scale=0.005, horizontal_scale=0.1)


def test_pyramids_and_stairs() -> None:
    """A slope of 0.2 over 4 m to the middle, cut at a platform of 1 m; stairs of three samples with 0.1 m each."""
    heights = terrain_utils.pyramid_sloped_terrain(tile(), slope=0.2, platform_size=1.0).height_field_raw * 0.005
    assert heights[0].max() == 0 and heights[40, 40] == heights.max()
    assert heights.max() == pytest.approx(0.8 * (35 / 40) ** 2, abs=0.005)
    stairs = terrain_utils.pyramid_stairs_terrain(tile(), 0.31, 0.1, platform_size=2.0).height_field_raw * 0.005
    assert sorted(set(np.round(stairs[40, :41], 3))) == pytest.approx([0.1 * step for step in range(11)])
    assert terrain_utils.pyramid_stairs_terrain(tile(), 0.31, -0.1, 2.0).height_field_raw.min() < 0


def test_random_terrains_stay_within_their_bounds() -> None:
    np.random.seed(0)  # noqa: NPY002  (the generators use NumPy's global one, which task code seeds)
    noise = terrain_utils.random_uniform_terrain(tile(), -0.05, 0.05, 0.005, 0.2).height_field_raw
    assert noise.min() >= -10 and noise.max() <= 10 and noise.std() > 1
    obstacles = terrain_utils.discrete_obstacles_terrain(tile(), 0.1, 1.0, 2.0, 20, 3.0).height_field_raw
    assert set(np.unique(obstacles)) <= {-20, -10, 0, 10, 20} and not obstacles[30:50, 30:50].any()
    stones = terrain_utils.stepping_stones_terrain(tile(), 0.5, 0.2, 0.0, 4.0).height_field_raw
    assert stones.min() == -2000 and not stones[20:60, 20:60].any()


def test_a_mesh_of_a_height_field_becomes_that_height_field() -> None:
    np.random.seed(1)  # noqa: NPY002
    raw = terrain_utils.random_uniform_terrain(tile(width=30, length=20), -0.1, 0.1, 0.005, 0.3).height_field_raw
    vertices, triangles = terrain_utils.convert_heightfield_to_trimesh(raw, 0.1, 0.005)
    assert vertices.shape == (600, 3) and triangles.shape == (2 * 29 * 19, 3)
    params = TriangleMeshParams(len(vertices), len(triangles))
    params.transform.p = Vec3(-5, 2, 0.5)
    found = mesh(vertices.flatten(), triangles.flatten(), params)
    assert found.heights == pytest.approx(raw * 0.005, abs=1e-6)
    assert found.spacing == pytest.approx((0.1, 0.1)) and tuple(found.origin) == pytest.approx((-5, 2, 0.5))


def test_ground_that_is_not_what_its_parameters_say_is_refused() -> None:
    corners, triangle = np.array([0.0, 0, 0, 1, 0, 0, 0, 1, 0]), np.array([0, 1, 2])
    with pytest.raises(ConfigError, match="nb_vertices=4: 9 numbers are given"):
        mesh(corners, triangle, TriangleMeshParams(4, 1))
    with pytest.raises(ConfigError, match="a triangle has vertex 5: there are 3"):
        mesh(corners, np.array([0, 1, 5]), TriangleMeshParams(3, 1))
    with pytest.raises(ConfigError, match="21 samples; nbColumns=4 and nbRows=5"):
        height_field(np.zeros(21, np.int16), HeightFieldParams(nbRows=5, nbColumns=4))


def test_walls_of_a_mesh_stay_within_one_sample() -> None:
    """A step of 0.5 m: with a threshold its foot moves under its edge, and the height field keeps both levels."""
    raw = np.zeros((20, 20), np.int16)
    raw[10:] = 100
    vertices, triangles = terrain_utils.convert_heightfield_to_trimesh(raw, 0.1, 0.005, slope_threshold=0.75)
    assert vertices[:, 0].reshape(20, 20)[9] == pytest.approx(np.full(20, 1.0))
    found = mesh(vertices.flatten(), triangles.flatten(), TriangleMeshParams(len(vertices), len(triangles))).heights
    assert found[:10] == pytest.approx(np.zeros((10, 20)), abs=1e-6)
    assert found[10:] == pytest.approx(np.full((10, 20), 0.5))


def test_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--task", "x", "--sim_device", "cpu", "--num_envs", "7"])
    custom = [{"name": "--task", "type": str}, {"name": "--num_envs", "type": int, "help": "many"}]
    found = gymutil.parse_arguments(custom_parameters=custom)
    assert (found.task, found.num_envs, found.sim_device_type, found.compute_device_id) == ("x", 7, "cpu", 0)
    assert not found.use_gpu and not found.use_gpu_pipeline and found.subscenes == found.slices == 0
    assert gymutil.parse_device_str("cuda:3") == ("cuda", 3)
    with pytest.raises(ValueError, match="sim_device=tpu"):
        gymutil.parse_device_str("tpu")


def test_settings_of_a_simulation() -> None:
    params = SimParams()
    gymutil.parse_sim_config({"dt": 0.01, "up_axis": 1, "gravity": [0, 0, -3], "physx": {"num_threads": 4}}, params)
    assert (params.dt, params.up_axis, tuple(params.gravity)) == (0.01, UpAxis.UP_AXIS_Z, (0, 0, -3))
    assert params.physx.num_threads == 4


def test_every_provided_name_is_on_the_page() -> None:
    """Of the page's section on names: those of the code, and no others."""
    page = (Path(__file__).parents[2] / "docs" / "isaacgym.md").read_text()
    section = page.partition("## Names")[2].partition("## ")[0]
    found = {name.removesuffix("()") for name in re.findall(r"`(\w+)`", section)}
    functions = {name for base in Gym.__bases__ for name in vars(base) if not name.startswith("_")}
    modules = (gymutil, gymtorch, torch_utils, terrain_utils)
    others = {name for module in modules for name, each in vars(module).items() if _is_own(module, name, each)}
    types = {name for name in gymapi.__all__ if name != "Gym"}
    named = {"gym", "gymapi", "gymtorch", "gymutil", "torch_utils", "terrain_utils", "mujoco"}
    assert found - named == functions | others | types


def _is_own(module: ModuleType, name: str, value: object) -> bool:
    here = getattr(value, "__module__", None) == module.__name__
    return here and (not name.startswith("_") or name == "_indent_xml")
