"""Assets."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from dualfid_robot.isaacgym import assets
from dualfid_robot.isaacgym.actors import (
    check_shapes,
)
from dualfid_robot.isaacgym.assets import Asset
from dualfid_robot.isaacgym.functions.handles import Sim, find, no_tendons
from dualfid_robot.isaacgym.parameters import (
    ActuatorProperties,
    AssetOptions,
    ForceSensorProperties,
    RigidShapeProperties,
)
from dualfid_robot.isaacgym.session import not_provided, say_once
from dualfid_robot.isaacgym.transforms import Transform


class AssetFunctions:
    """Functions about assets."""

    def load_asset(self, sim: Sim, rootpath: str, filename: str, options: AssetOptions | None = None) -> Asset:
        return assets.load_asset(rootpath, filename, copy.deepcopy(options) if options else AssetOptions())

    def create_box(
        self, sim: Sim, width: float, height: float, depth: float, options: AssetOptions | None = None
    ) -> Asset:
        return assets.box(width, height, depth, options or AssetOptions())

    def create_sphere(self, sim: Sim, radius: float, options: AssetOptions | None = None) -> Asset:
        return assets.sphere(radius, options or AssetOptions())

    def create_capsule(self, sim: Sim, radius: float, length: float, options: AssetOptions | None = None) -> Asset:
        return assets.capsule(radius, length, options or AssetOptions())

    def get_asset_rigid_body_count(self, asset: Asset) -> int:
        return len(asset.body_names)

    def get_asset_rigid_body_names(self, asset: Asset) -> list[str]:
        return list(asset.body_names)

    def get_asset_rigid_body_name(self, asset: Asset, index: int) -> str:
        return asset.body_names[index]

    def find_asset_rigid_body_index(self, asset: Asset, name: str) -> int:
        return find(asset.body_names, name)

    def get_asset_dof_count(self, asset: Asset) -> int:
        return len(asset.dof_names)

    def get_asset_dof_names(self, asset: Asset) -> list[str]:
        return list(asset.dof_names)

    def get_asset_dof_name(self, asset: Asset, index: int) -> str:
        return asset.dof_names[index]

    def find_asset_dof_index(self, asset: Asset, name: str) -> int:
        return find(asset.dof_names, name)

    def get_asset_dof_dict(self, asset: Asset) -> dict[str, int]:
        return {name: number for number, name in enumerate(asset.dof_names)}

    def get_asset_rigid_body_dict(self, asset: Asset) -> dict[str, int]:
        return {name: number for number, name in enumerate(asset.body_names)}

    def get_asset_joint_count(self, asset: Asset) -> int:
        """Joints between bodies, those that do not move among them."""
        return len(asset.body_names) - 1

    def get_asset_rigid_shape_count(self, asset: Asset) -> int:
        return len(asset.shapes)

    def get_asset_dof_properties(self, asset: Asset) -> np.ndarray:
        return asset.dof_properties.copy()

    def get_asset_rigid_shape_properties(self, asset: Asset) -> list[RigidShapeProperties]:
        return copy.deepcopy(asset.shapes)

    def set_asset_rigid_shape_properties(self, asset: Asset, properties: list[RigidShapeProperties]) -> bool:
        check_shapes("asset", properties, len(asset.shapes))
        asset.shapes = copy.deepcopy(properties)
        return True

    def get_asset_actuator_count(self, asset: Asset) -> int:
        return len(asset.actuators)

    def get_asset_actuator_properties(self, asset: Asset) -> list[ActuatorProperties]:
        return [copy.deepcopy(properties) for _, properties in asset.actuators]

    def get_asset_actuator_joint_name(self, asset: Asset, index: int) -> str:
        return asset.actuators[index][0]

    def get_asset_tendon_count(self, asset: Asset) -> int:
        return int(asset.model.ntendon)

    def get_asset_tendon_name(self, asset: Asset, index: int) -> str:
        return str(asset.model.tendon(index).name)

    def get_asset_tendon_properties(self, asset: Asset) -> list[Any]:
        return no_tendons(asset, "gym.get_asset_tendon_properties")

    def set_asset_tendon_properties(self, asset: Asset, properties: list[Any]) -> bool:
        return no_tendons(asset, "gym.set_asset_tendon_properties") == properties

    def create_asset_force_sensor(
        self, asset: Asset, body: int, pose: Transform, properties: ForceSensorProperties | None = None
    ) -> int:
        """A sensor of the contacts' wrench on a body; a joint's reactions are not in it."""
        say_once("force sensors measure contacts alone, not the reactions of joints")
        if properties is not None and properties.use_world_frame:
            raise not_provided("ForceSensorProperties.use_world_frame")
        asset.sensors.append((body, copy.deepcopy(pose)))
        return len(asset.sensors) - 1
