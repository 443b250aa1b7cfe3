"""Two small robots of our own, and how tests build simulations of them."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

# Children are neither in the file's order nor all movable: a foot that stays a body, a lamp that does not.
WALKER = """<robot name="walker">
  <link name="base">
    <inertial><mass value="6"/><inertia ixx="0.1" iyy="0.2" izz="0.25" ixy="0" ixz="0" iyz="0"/></inertial>
    <collision><geometry><box size="0.4 0.2 0.1"/></geometry></collision>
  </link>
  <link name="lamp">
    <inertial><origin xyz="0 0 0.1"/><mass value="2"/>
      <inertia ixx="0.01" iyy="0.02" izz="0.03" ixy="0" ixz="0" iyz="0"/></inertial>
  </link>
  <joint name="lamp" type="fixed"><origin xyz="0.2 0 0"/><parent link="base"/><child link="lamp"/></joint>
  LEGS
</robot>"""

LEG = """<link name="{side}_leg">
    <inertial><origin xyz="0 0 -0.1"/><mass value="0.5"/>
      <inertia ixx="0.002" iyy="0.002" izz="0.001" ixy="0" ixz="0" iyz="0"/></inertial>
    <collision><origin xyz="0 0 -0.1"/><geometry><cylinder radius="0.02" length="0.2"/></geometry></collision>
  </link>
  <link name="{side}_foot">
    <inertial><mass value="0.1"/><inertia ixx="1e-4" iyy="1e-4" izz="1e-4" ixy="0" ixz="0" iyz="0"/></inertial>
    <collision><geometry><sphere radius="0.03"/></geometry></collision>
  </link>
  <joint name="{side}_hip" type="revolute"><origin xyz="{x} {y} -0.05"/><parent link="base"/><child link="{side}_leg"/>
    <axis xyz="0 1 0"/><limit lower="-1.2" upper="0.8" effort="30" velocity="12"/>
    <dynamics damping="0.2" friction="0.05"/>
  </joint>
  <joint name="{side}_ankle" type="fixed" dont_collapse="true"><origin xyz="0 0 -0.2"/>
    <parent link="{side}_leg"/><child link="{side}_foot"/></joint>"""

POLE = """<mujoco model="pole">
  <compiler angle="degree"/>
  <worldbody>
    <geom name="floor" type="plane" size="0 0 1" material="never_defined"/>
    <body name="cart" pos="0 0 7">
      <joint name="slide" type="slide" axis="1 0 0" range="-3 3" limited="true" damping="0.5" armature="0.1"/>
      <geom type="box" size="0.2 0.1 0.1" mass="2"/>
      <body name="pole">
        <joint name="hinge" type="hinge" axis="0 1 0" stiffness="1.5"/>
        <geom type="capsule" fromto="0 0 0 0 0 1" size="0.03" mass="0.5" contype="0" conaffinity="0"/>
        <geom type="sphere" pos="0 0 1" size="0.05" mass="0.25"/>
      </body>
    </body>
  </worldbody>
  <actuator><motor joint="slide" gear="40" ctrlrange="-1 1" ctrllimited="true"/></actuator>
</mujoco>"""


def load(gymapi: ModuleType, path: Path, **options: Any) -> tuple[Any, Any]:
    """The gym, and an asset with these options."""
    gym, chosen = gymapi.acquire_gym(), gymapi.AssetOptions()
    for name, value in options.items():
        setattr(chosen, name, value)
    return gym, gym.load_asset(None, str(path.parent), path.name, chosen)


def build(gymapi: ModuleType, asset: Any, n: int, height: float = 0.5, ground: bool = True, **settings: Any) -> Any:
    """A simulation of n environments of one actor, 200 Hz, z up."""
    gym, params = gymapi.acquire_gym(), gymapi.SimParams()
    params.dt, params.substeps, params.up_axis = 0.005, 1, gymapi.UP_AXIS_Z
    params.gravity = gymapi.Vec3(0, 0, -9.81)
    for name, value in settings.items():
        setattr(params, name, value)
    sim = gym.create_sim(0, -1, gymapi.SIM_PHYSX, params)
    if ground:
        plane = gymapi.PlaneParams()
        plane.normal = gymapi.Vec3(0, 0, 1)
        gym.add_ground(sim, plane)
    pose = gymapi.Transform()
    pose.p.z = height
    for number in range(n):
        env = gym.create_env(sim, gymapi.Vec3(), gymapi.Vec3(), n)
        gym.create_actor(env, asset, pose, "actor", number, 1, 0)
    gym.prepare_sim(sim)
    return sim


def standing(gymapi: Any, walker: Path, n: int, **options: Any) -> tuple[Any, Any]:
    """A simulation of n walkers on their feet, joints free."""
    gym, asset = load(gymapi, walker, collapse_fixed_joints=True, **options)
    return gym, build(gymapi, asset, n, height=0.281)


def slider(gymapi: Any, tmp_path: Path, mass: float = 2.0) -> tuple[Any, Any]:
    """A mass on a slide without gravity, and the gym."""
    (tmp_path / "slider.xml").write_text(
        '<mujoco><worldbody><body name="b"><joint name="j" type="slide" axis="1 0 0"/>'
        f'<geom type="sphere" size="0.1" mass="{mass}"/></body></worldbody></mujoco>'
    )
    return load(gymapi, tmp_path / "slider.xml", fix_base_link=True)
