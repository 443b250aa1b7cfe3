"""Settings and properties of `isaacgym.gymapi`. A name that a structure does not have cannot be set."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np

from dualfid_robot.isaacgym.session import not_provided
from dualfid_robot.isaacgym.transforms import Transform, Vec3

UNLIMITED = float(np.finfo(np.float32).max)
"""What Isaac Gym reports for a limit that the asset does not set."""

DOF_PROPERTIES = np.dtype(
    [
        ("hasLimits", "?"),
        ("lower", "<f4"),
        ("upper", "<f4"),
        ("driveMode", "<i4"),
        ("velocity", "<f4"),
        ("effort", "<f4"),
        ("stiffness", "<f4"),
        ("damping", "<f4"),
        ("friction", "<f4"),
        ("armature", "<f4"),
    ]
)


class SimType(IntEnum):
    """Physics engines of Isaac Gym; both mean the engine that the launcher was given."""

    SIM_PHYSX = 0
    SIM_FLEX = 1


class UpAxis(IntEnum):
    """Axis that points up."""

    UP_AXIS_Y = 0
    UP_AXIS_Z = 1


class DofDriveMode(IntEnum):
    """What drives a joint."""

    DOF_MODE_NONE = 0
    DOF_MODE_POS = 1
    DOF_MODE_VEL = 2
    DOF_MODE_EFFORT = 3


class ContactCollection(IntEnum):
    """At which substeps PhysX collects contacts; here it is always the last one."""

    CC_NEVER = 0
    CC_LAST_SUBSTEP = 1
    CC_ALL_SUBSTEPS = 2


class _Structure:
    """Refuses names that it does not have, by name. Its numbers take arrays of one element too, as NVIDIA's do."""

    def __getattr__(self, name: str) -> Any:
        raise not_provided(f"gymapi.{type(self).__name__}.{name}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.__dataclass_fields__:
            raise not_provided(f"gymapi.{type(self).__name__}.{name}")
        if isinstance(getattr(type(self), name, None), float):
            value = float(value.item() if hasattr(value, "item") else value)
        object.__setattr__(self, name, value)


@dataclass
class PhysXParams(_Structure):
    """Settings of PhysX; the engines here have their own and read none of them."""

    always_use_articulations: bool = False
    bounce_threshold_velocity: float = 0.2
    contact_collection: ContactCollection = ContactCollection.CC_ALL_SUBSTEPS
    contact_offset: float = 0.02
    default_buffer_size_multiplier: float = 2.0
    friction_correlation_distance: float = 0.025
    friction_offset_threshold: float = 0.04
    max_depenetration_velocity: float = 100.0
    max_gpu_contact_pairs: int = 1048576
    num_position_iterations: int = 4
    num_subscenes: int = 0
    num_threads: int = 0
    num_velocity_iterations: int = 1
    rest_offset: float = 0.001
    solver_type: int = 1
    use_gpu: bool = False


@dataclass
class FlexParams(_Structure):
    """Settings of Flex, kept and not read."""

    solver_type: int = 5
    num_outer_iterations: int = 4
    num_inner_iterations: int = 20
    relaxation: float = 0.75
    warm_start: float = 0.4
    shape_collision_margin: float = 0.01
    deterministic_mode: bool = True


@dataclass
class SimParams(_Structure):
    """Settings of a simulation: time step dt, s, in `substeps` physics steps; gravity, m/s²."""

    dt: float = 1.0 / 60.0
    substeps: int = 2
    up_axis: UpAxis = UpAxis.UP_AXIS_Y
    gravity: Vec3 = field(default_factory=lambda: Vec3(0.0, -9.8, 0.0))
    use_gpu_pipeline: bool = False
    num_client_threads: int = 0
    enable_actor_creation_warning: bool = True
    stress_visualization: bool = False
    stress_visualization_min: float = 0.0
    stress_visualization_max: float = 1e5
    physx: PhysXParams = field(default_factory=PhysXParams)
    flex: FlexParams = field(default_factory=FlexParams)


@dataclass
class VhacdParams(_Structure):
    """Settings of a convex decomposition, kept and not read."""

    resolution: int = 100000
    max_convex_hulls: int = 64
    max_num_vertices_per_ch: int = 64
    alpha: float = 0.05
    beta: float = 0.05
    concavity: float = 0.0025
    convex_hull_approximation: bool = True
    convex_hull_downsampling: int = 4
    min_volume_per_ch: float = 0.0001
    mode: int = 0
    ocl_acceleration: bool = True
    pca: int = 0
    plane_downsampling: int = 4
    project_hull_vertices: bool = True


@dataclass
class AssetOptions(_Structure):
    """How an asset is read; docs/isaacgym.md says which options count here."""

    angular_damping: float = 0.5
    armature: float = 0.0
    collapse_fixed_joints: bool = False
    convex_decomposition_from_submeshes: bool = False
    default_dof_drive_mode: int = DofDriveMode.DOF_MODE_NONE
    density: float = 1000.0
    disable_gravity: bool = False
    enable_gyroscopic_forces: bool = True
    fix_base_link: bool = False
    flip_visual_attachments: bool = False
    linear_damping: float = 0.0
    max_angular_velocity: float = 64.0
    max_linear_velocity: float = 1000.0
    mesh_normal_mode: int = 0
    min_particle_mass: float = 1e-12
    override_com: bool = False
    override_inertia: bool = False
    replace_cylinder_with_capsule: bool = False
    slices_per_cylinder: int = 20
    tendon_limit_stiffness: float = 1.0
    thickness: float = 0.02
    use_mesh_materials: bool = False
    use_physx_armature: bool = True
    vhacd_enabled: bool = False
    vhacd_params: VhacdParams = field(default_factory=VhacdParams)


@dataclass
class PlaneParams(_Structure):
    """A ground plane: its normal, and its distance from the origin against it, m."""

    normal: Vec3 = field(default_factory=lambda: Vec3(0.0, 1.0, 0.0))
    distance: float = 0.0
    static_friction: float = 1.0
    dynamic_friction: float = 1.0
    restitution: float = 0.0
    segmentation_id: int = 0


@dataclass
class HeightFieldParams(_Structure):
    """A height field of nbColumns (along x) times nbRows (along y) samples."""

    nbRows: int = 0
    nbColumns: int = 0
    column_scale: float = 1.0
    row_scale: float = 1.0
    vertical_scale: float = 1.0
    transform: Transform = field(default_factory=Transform)
    static_friction: float = 1.0
    dynamic_friction: float = 1.0
    restitution: float = 0.0
    segmentation_id: int = 0


@dataclass
class TriangleMeshParams(_Structure):
    """A triangle mesh of `nb_vertices` and `nb_triangles`."""

    nb_vertices: int = 0
    nb_triangles: int = 0
    transform: Transform = field(default_factory=Transform)
    static_friction: float = 1.0
    dynamic_friction: float = 1.0
    restitution: float = 0.0
    segmentation_id: int = 0


@dataclass
class CameraProperties(_Structure):
    """A camera's image size, px, and horizontal field of view, degrees."""

    width: int = 1600
    height: int = 900
    horizontal_fov: float = 90.0
    near_plane: float = 0.001
    far_plane: float = 2e6
    enable_tensors: bool = False
    supersampling_horizontal: int = 1
    supersampling_vertical: int = 1
    use_collision_geometry: bool = False


@dataclass
class AttractorProperties(_Structure):
    """A spring between a point of a body and a point of the world."""

    axes: int = 0
    damping: float = 0.0
    stiffness: float = 0.0
    rigid_handle: int = -1
    offset: Transform = field(default_factory=Transform)
    target: Transform = field(default_factory=Transform)


@dataclass
class ForceSensorProperties(_Structure):
    """What a force sensor measures; here it is always the contacts' wrench in the sensor's frame."""

    enable_constraint_solver_forces: bool = True
    enable_forward_dynamics_forces: bool = True
    use_world_frame: bool = False


@dataclass
class Mat33(_Structure):
    """A matrix by its rows."""

    x: Vec3 = field(default_factory=Vec3)
    y: Vec3 = field(default_factory=Vec3)
    z: Vec3 = field(default_factory=Vec3)


@dataclass
class RigidBodyProperties(_Structure):
    """Mass, kg, centre of mass, m, body frame, and inertia about it, kg m², body axes."""

    mass: float = 0.0
    com: Vec3 = field(default_factory=Vec3)
    inertia: Mat33 = field(default_factory=Mat33)
    invMass: float = 0.0
    invInertia: Mat33 = field(default_factory=Mat33)
    flags: int = 0


@dataclass
class RigidShapeProperties(_Structure):
    """A collision shape's surface and filter; shapes whose filters share a bit do not touch."""

    friction: float = 1.0
    rolling_friction: float = 0.0
    torsion_friction: float = 0.0
    restitution: float = 0.0
    compliance: float = 0.0
    contact_offset: float = 0.02
    rest_offset: float = 0.0
    thickness: float = 0.02
    filter: int = 0


@dataclass
class ActuatorProperties(_Structure):
    """An actuator of an MJCF file: its gains, where it is a servo, its ranges of controls and forces, and its gear."""

    control_limited: bool = False
    force_limited: bool = False
    kp: float = 0.0
    kv: float = 0.0
    lower_control_limit: float = -UNLIMITED
    upper_control_limit: float = UNLIMITED
    lower_force_limit: float = -UNLIMITED
    upper_force_limit: float = UNLIMITED
    motor_effort: float = 0.0
