"""Every field of a compiled model and of its options. It also says what of it an engine may be unable to simulate.

Each field is one of three kinds. It does not change how a robot moves (`NO_EFFECT`). Or every engine has it
(`HONOURED`), and an engine's own conversion refuses values that it cannot express. Or it belongs to a feature of
`FEATURES`. An engine names the features that it simulates. A robot that has another is refused by the name of the
element. So a feature that is added here is refused by every engine until that says otherwise. A test compares the
fields named here with MuJoCo's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from dualfid_robot.errors import ConfigError

Found = Iterator[tuple[str, str]]
"""Elements of a model that have a feature, each as its kind and its name."""

_Where = Callable[[mujoco.MjModel], Any]

_JOINT, _OBJ = mujoco.mjtJoint, mujoco.mjtObj
_OFF, _ON = mujoco.mjtDisableBit, mujoco.mjtEnableBit

NO_EFFECT = {
    "sizes": """
        nB nC nD nJfe nJmom nJten nM na nactuator narena nbody nbuffer nbvh nbvhdynamic nbvhstatic ncam nconmax nefm0L
        nefm0dof nefmCvert nemax neq nexclude nflex nflexbending nflexedge nflexelem nflexelemdata nflexelemedge
        nflexnode nflexshelldata nflexstiffness nflextexcoord nflexvert ngeom ngravcomp nhfield nhfielddata nhistory
        njmax njnt nkey nlight nmat nmesh nmeshdegmax nmeshface nmeshgraph nmeshnormal nmeshpoly nmeshpolymap
        nmeshpolyvert nmeshtexcoord nmeshvert nmocap nnames nnames_map nnumeric nnumericdata noct nout npair npaths
        nplastic nplugin npluginattr npluginstate npolygonmax nq nsensor nsensordata nsite nskin nskinbone
        nskinbonevert nskinface nskintexvert nskinvert ntendon ntex ntexdata ntext ntextdata ntree ntuple ntupledata nu
        nuser_actuator nuser_body nuser_cam nuser_geom nuser_jnt nuser_sensor nuser_site nuser_tendon nuserdata nv
        nwrap""",
    "derived by the compiler from other fields": """
        B_colind B_rowadr B_rownnz D_colind D_diag D_rowadr D_rownnz M_colind M_rowadr M_rownnz mapD2M mapM2D mapM2M
        body_bvhadr body_bvhnum body_contype body_conaffinity body_dofadr body_dofnum body_geomadr body_geomnum
        body_invweight0 body_jntadr body_jntnum body_margin body_rootid body_sameframe body_simple body_subtreemass
        body_treeid body_weldid bvh_aabb bvh_child bvh_depth bvh_nodeid oct_aabb oct_child oct_coeff oct_depth
        dof_M0 dof_Madr dof_bodyid dof_invweight0 dof_jntid dof_length dof_parentid dof_simplenum dof_treeid
        efm0_L efm0_L_colind efm0_L_rowadr efm0_L_rownnz efm0_dofid efmC_perm flg_adhesion flg_gravcomp flg_surfacevel
        geom_aabb geom_rbound geom_sameframe jnt_dofadr jnt_qposadr pair_signature stat ten_J_colind ten_J_rowadr
        ten_J_rownnz tendon_invweight0 tendon_length0 tendon_treeid tendon_treenum tree_bodyadr tree_bodynum
        tree_dofadr tree_dofnum actuator_acc0 actuator_actadr actuator_ctrladr actuator_historyadr actuator_length0
        actuator_lengthrange actuator_outadr actuator_outnum""",
    "names, data of the user and keyframes": """
        actuator_user body_user cam_user geom_user jnt_user sensor_user site_user tendon_user numeric_adr numeric_data
        numeric_size text_adr text_data text_size tuple_adr tuple_objid tuple_objprm tuple_objtype tuple_size key_act
        key_ctrl key_mpos key_mquat key_plastic key_qpos key_qvel key_time name_actuatoradr name_bodyadr name_camadr
        name_eqadr name_excludeadr name_flexadr name_geomadr name_hfieldadr name_jntadr name_keyadr name_lightadr
        name_matadr name_meshadr name_numericadr name_pairadr name_pluginadr name_sensoradr name_siteadr name_skinadr
        name_tendonadr name_texadr name_textadr name_tupleadr names names_map paths hfield_pathadr mesh_pathadr
        skin_pathadr tex_pathadr signature""",
    "how it looks": """
        vis cam_bodyid cam_fovy cam_intrinsic cam_ipd cam_mat0 cam_mode cam_output cam_pos cam_pos0 cam_poscom0
        cam_projection cam_quat cam_resolution cam_sensorsize cam_targetbodyid flex_flatskin flex_group flex_matid
        flex_rgba flex_elemtexcoord flex_texcoord flex_texcoordadr geom_castshadow geom_group geom_matid geom_rgba
        jnt_group light_active light_ambient light_attenuation light_bodyid light_bulbradius light_castshadow
        light_cutoff light_diffuse light_dir light_dir0 light_exponent light_intensity light_mode light_pos light_pos0
        light_poscom0 light_range light_softness light_specular light_targetbodyid light_texid light_type mat_emission
        mat_metallic mat_reflectance mat_rgba mat_roughness mat_shininess mat_specular mat_texid mat_texrepeat
        mat_texuniform mesh_facetexcoord mesh_normal mesh_normaladr mesh_normalnum mesh_facenormal mesh_texcoord
        mesh_texcoordadr mesh_texcoordnum site_group site_matid site_rgba site_size site_type site_dataid
        site_sameframe skin_boneadr skin_bonebindpos skin_bonebindquat skin_bonebodyid skin_bonenum skin_bonevertadr
        skin_bonevertid skin_bonevertnum skin_bonevertweight skin_face skin_faceadr skin_facenum skin_group
        skin_inflate skin_matid skin_rgba skin_texcoord skin_texcoordadr skin_vert skin_vertadr skin_vertnum
        tendon_group tendon_matid tendon_rgba tendon_width tex_adr tex_colorspace tex_contenttypeadr tex_data
        tex_height tex_nchannel tex_type tex_width""",
    "sensors, which no policy reads": """
        sensor_adr sensor_cutoff sensor_datatype sensor_dim sensor_intprm sensor_needstage sensor_noise sensor_objid
        sensor_objtype sensor_refid sensor_reftype sensor_type sensor_interval opt.magnetic""",
    "replaced by the simulator's settings": """
        opt.timestep opt.integrator opt.cone opt.solver opt.iterations""",
    "accuracy of MuJoCo's own algorithms": """
        opt.tolerance opt.ls_tolerance opt.ls_iterations opt.noslip_tolerance opt.noslip_iterations opt.ccd_tolerance
        opt.ccd_iterations opt.jacobian opt.sdf_initpoints opt.sdf_iterations geom_gap""",
    "softness of MuJoCo's constraints, for which other engines have their own settings": """
        opt.impratio dof_solimp dof_solref geom_solimp geom_solmix geom_solref jnt_solimp jnt_solref""",
}
"""Fields that do not change how a robot moves, or not in a way that an engine is asked to follow, by the reason."""

HONOURED = {
    "bodies": "body_inertia body_ipos body_iquat body_mass body_parentid body_pos body_quat",
    "joints": """
        qpos0 qpos_spring jnt_actfrclimited jnt_actfrcrange jnt_axis jnt_bodyid jnt_limited jnt_pos jnt_range
        jnt_stiffness dof_armature dof_damping dof_frictionloss""",
    "contacts": """
        geom_bodyid geom_conaffinity geom_condim geom_contype geom_dataid geom_friction geom_margin geom_pos
        geom_priority geom_quat geom_size geom_type exclude_signature""",
    "shapes of geoms, by engines that take meshes and height fields": """
        hfield_adr hfield_data hfield_ncol hfield_nrow hfield_size mesh_bvhadr mesh_bvhnum mesh_extrema mesh_face
        mesh_faceadr mesh_facenum mesh_graph mesh_graphadr mesh_octadr mesh_octnum mesh_polyadr mesh_polymap
        mesh_polymapadr mesh_polymapnum mesh_polynormal mesh_polynum mesh_polyvert mesh_polyvertadr mesh_polyvertnum
        mesh_pos mesh_quat mesh_scale mesh_vert mesh_vertadr mesh_vertnum""",
    "gravity": "opt.gravity",
    "actuators, by the law of robots.actuators": """
        actuator_actearly actuator_actlimited actuator_actnum actuator_actrange actuator_armature actuator_biasprm
        actuator_biastype actuator_cranklength actuator_ctrllimited actuator_ctrlnum actuator_ctrlrange
        actuator_ctrlspec actuator_damping actuator_dampingpoly actuator_delay actuator_dynprm actuator_dyntype
        actuator_forcelimited actuator_forcerange actuator_gainprm actuator_gaintype actuator_gear actuator_history
        actuator_trnid actuator_trntype jnt_actuatorid site_bodyid site_pos site_quat""",
}
"""Fields that every engine simulates, or refuses by name where it converts them."""


@dataclass(frozen=True)
class Feature:
    """Something that a model can have.

    Attributes:
        problem: what an error calls it.
        fields: of the compiled model, `opt.` before those of its options.
        find: the elements that have it.
    """

    problem: str
    fields: str
    find: Callable[[mujoco.MjModel], Found]


def _named(kind: str, type_: int, where: _Where) -> Callable[[mujoco.MjModel], Found]:
    """A finder of the elements of one kind for which a condition on arrays holds.

    It gives a name, or else the number.
    """

    def find(model: mujoco.MjModel) -> Found:
        for number in np.flatnonzero(where(model)).tolist():
            yield kind, mujoco.mj_id2name(model, type_, number) or str(number)

    return find


def _joints(where: _Where) -> Callable[[mujoco.MjModel], Found]:
    return _named("joint", _OBJ.mjOBJ_JOINT, where)


def _bodies(where: _Where) -> Callable[[mujoco.MjModel], Found]:
    return _named("body", _OBJ.mjOBJ_BODY, where)


def _option(name: str, where: Callable[[mujoco.MjModel], bool]) -> Callable[[mujoco.MjModel], Found]:
    def find(model: mujoco.MjModel) -> Found:
        if where(model):
            yield "option", name

    return find


def _used(values: np.ndarray) -> np.ndarray:
    """Which rows have a number other than zero."""
    return np.asarray(values.any(tuple(range(1, values.ndim))) if values.ndim > 1 else values != 0)


def _free(model: mujoco.MjModel) -> np.ndarray:
    return np.asarray(model.jnt_type == _JOINT.mjJNT_FREE)


def _of_joints(model: mujoco.MjModel, *of_dofs: np.ndarray) -> np.ndarray:
    """Which joints have a nonzero value in one of their degrees of freedom; arrays (nv, …)."""
    used = np.zeros(model.njnt, bool)
    for values in of_dofs:
        used[model.dof_jntid[_used(values)]] = True
    return used


def _pushed_free(model: mujoco.MjModel) -> np.ndarray:
    pushed = _of_joints(model, model.dof_damping, model.dof_armature, model.dof_frictionloss)
    return _free(model) & (pushed | _used(model.jnt_stiffness))


def _moving(model: mujoco.MjModel) -> np.ndarray:
    return np.asarray(model.body_weldid != 0)


def _other_trees(model: mujoco.MjModel) -> np.ndarray:
    if not model.njnt or model.jnt_type[0] != _JOINT.mjJNT_FREE:
        return np.zeros(model.nbody, bool)
    return np.logical_and(_moving(model), model.body_rootid != model.jnt_bodyid[0])


def _acting_tendons(model: mujoco.MjModel) -> np.ndarray:
    names = ("limited", "stiffness", "stiffnesspoly", "damping", "dampingpoly", "frictionloss", "armature")
    return np.logical_or.reduce([_used(getattr(model, f"tendon_{name}")) for name in names])


def _switched_off(model: mujoco.MjModel) -> np.ndarray:
    groups = np.clip(model.actuator_group, 0, 30)  # MuJoCo switches off no others
    off = (model.opt.disableactuator >> groups) & 1
    return np.logical_and(model.actuator_group == groups, off)


FEATURES: dict[str, Feature] = {
    "fluid": Feature(
        "a fluid",
        "opt.density opt.viscosity opt.wind geom_fluid",
        _option("density, viscosity", lambda model: bool(model.opt.density or model.opt.viscosity)),
    ),
    "actuators switched off": Feature(
        "a group of actuators that is switched off",
        "opt.disableactuator actuator_group",
        _named("actuator", _OBJ.mjOBJ_ACTUATOR, _switched_off),
    ),
    "equality": Feature(
        "an equality",
        "eq_active0 eq_data eq_obj1id eq_obj2id eq_objtype eq_solimp eq_solref eq_type",
        _named("equality", _OBJ.mjOBJ_EQUALITY, lambda model: model.eq_active0),
    ),
    "tendon": Feature(
        "a tendon that acts",
        """tendon_actfrclimited tendon_actfrcrange tendon_actuatorid tendon_adr tendon_armature tendon_damping
        tendon_dampingpoly tendon_frictionloss tendon_lengthspring tendon_limited tendon_margin tendon_num tendon_range
        tendon_solimp_fri tendon_solimp_lim tendon_solref_fri tendon_solref_lim tendon_stiffness tendon_stiffnesspoly
        tendon_type wrap_objid wrap_prm wrap_type""",
        _named("tendon", _OBJ.mjOBJ_TENDON, _acting_tendons),
    ),
    "contact pair": Feature(
        "a contact pair",
        """pair_dim pair_friction pair_gap pair_geom1 pair_geom2 pair_margin pair_solimp pair_solref
        pair_solreffriction""",
        _named("contact pair", _OBJ.mjOBJ_PAIR, lambda model: np.ones(model.npair)),
    ),
    "adhesion": Feature(
        "adhesion",
        "geom_adhesion pair_adhesion",
        _named("geom", _OBJ.mjOBJ_GEOM, lambda model: model.geom_adhesion),
    ),
    "surface velocity": Feature(
        "a surface velocity",
        "geom_surfacevel",
        _named("geom", _OBJ.mjOBJ_GEOM, lambda model: model.geom_surfacevel.any(1)),
    ),
    "flex": Feature(
        "a flex",
        """flex_activelayers flex_bending flex_bendingadr flex_bvhadr flex_bvhnum flex_cellnum flex_centered
        flex_conaffinity flex_condim flex_contype flex_damping flex_dim flex_edge flex_edgeadr flex_edgedamping
        flex_edgeequality flex_edgeflap flex_edgenum flex_edgestiffness flex_elem flex_elemadr flex_elemdataadr
        flex_elemedge flex_elemedgeadr flex_elemlayer flex_elemnum flex_friction flex_gap flex_interp flex_margin
        flex_node flex_node0 flex_nodeadr flex_nodebodyid flex_nodenum flex_passive flex_plasticadr flex_plasticmode
        flex_priority flex_radius flex_rigid flex_selfcollide flex_shell flex_shelldataadr flex_shellnum flex_size
        flex_solimp flex_solmix flex_solref flex_stiffness flex_stiffnessadr flex_vert flex_vert0 flex_vertadr
        flex_vertbodyid flex_vertcell flex_vertnum flex_yield flexedge_J_colind flexedge_J_rowadr flexedge_J_rownnz
        flexedge_invweight0 flexedge_length0 flexedge_rigid""",
        _named("flex", _OBJ.mjOBJ_FLEX, lambda model: np.ones(model.nflex)),
    ),
    "plugin": Feature(
        "a plugin",
        "plugin plugin_attr plugin_attradr actuator_plugin body_plugin geom_plugin sensor_plugin",
        _named("plugin", _OBJ.mjOBJ_PLUGIN, lambda model: np.ones(model.nplugin)),
    ),
    "plugin with a state": Feature(
        "a plugin with a state",
        "plugin_stateadr plugin_statenum",
        _named("plugin", _OBJ.mjOBJ_PLUGIN, lambda model: model.plugin_statenum),
    ),
    "plasticity": Feature(
        "plasticity",
        "jnt_plasticadr jnt_springyield tendon_plasticadr tendon_springyield",
        _option("springyield", lambda model: bool(model.nplastic)),
    ),
    "mocap body": Feature("a mocap body", "body_mocapid", _bodies(lambda model: model.body_mocapid >= 0)),
    "gravity compensation": Feature(
        "gravity compensation",
        "body_gravcomp jnt_actgravcomp",
        _bodies(lambda model: _moving(model) & (model.body_gravcomp != 0)),
    ),
    "several trees": Feature(
        "a second tree of moving bodies beside a floating base", "body_rootid", _bodies(_other_trees)
    ),
    "ball joint": Feature("a ball joint", "jnt_type", _joints(lambda model: model.jnt_type == _JOINT.mjJNT_BALL)),
    "second free joint": Feature(
        "a free joint that is not the first joint",
        "jnt_type",
        _joints(lambda model: _free(model) & (np.arange(model.njnt) > 0)),
    ),
    "free joint beside others": Feature(
        "a free joint beside others in one body",
        "jnt_type body_jntnum",
        _joints(lambda model: _free(model) & (model.body_jntnum[model.jnt_bodyid] > 1)),
    ),
    "passive forces on a free joint": Feature(
        "a damped, sprung, armoured or rubbing free joint",
        "dof_armature dof_damping dof_frictionloss jnt_stiffness",
        _joints(_pushed_free),
    ),
    "nonlinear spring or damper": Feature(
        "a nonlinear spring or damper",
        "jnt_stiffnesspoly dof_dampingpoly",
        _joints(lambda model: model.jnt_stiffnesspoly.any(1) | _of_joints(model, model.dof_dampingpoly)),
    ),
    "margin of limits": Feature(
        "a margin of the limits",
        "jnt_margin",
        _joints(lambda model: (model.jnt_limited != 0) & (model.jnt_margin != 0)),
    ),
    "armature of a slide": Feature(
        "armature of a slide joint",
        "dof_armature",
        _joints(lambda model: (model.jnt_type == _JOINT.mjJNT_SLIDE) & _of_joints(model, model.dof_armature)),
    ),
    "delayed sensor": Feature(
        "a delayed sensor",
        "sensor_delay sensor_history sensor_historyadr",
        _named("sensor", _OBJ.mjOBJ_SENSOR, lambda model: model.sensor_history[:, 0] > 0),
    ),
}
"""By name; `DISABLE` and `ENABLE` are among them."""

_NEEDED: dict[str, Callable[[mujoco.MjModel], object]] = {
    "equality": lambda model: model.eq_active0.any(),
    "frictionloss": lambda model: model.dof_frictionloss.any() or model.tendon_frictionloss.any(),
    "limit": lambda model: model.jnt_limited.any() or model.tendon_limited.any(),
    "spring": lambda model: model.jnt_stiffness.any() or model.tendon_stiffness.any(),
    "damper": lambda model: model.dof_damping.any() or model.tendon_damping.any(),
    "gravity": lambda model: model.opt.gravity.any(),
    "clampctrl": lambda model: model.actuator_ctrllimited.any(),
    "actuation": lambda model: model.nu,
}
"""Whether a model has what a flag switches off; the flags that are not here always count."""


def _flag(field: str, bit: int, short: str) -> Feature:
    def find(model: mujoco.MjModel) -> Found:
        if getattr(model.opt, field) & bit and _NEEDED.get(short, lambda _: True)(model):
            yield "option flag", short

    problem = "what it switches off" if field == "disableflags" else "what it switches on"
    return Feature(problem, f"opt.{field}", find)


DISABLE, ENABLE = (
    {
        f"flag {name.removeprefix(prefix).lower()}": _flag(field, int(bit), name.removeprefix(prefix).lower())
        for name, bit in enum.__members__.items()
        if name.startswith(prefix)
    }
    for enum, prefix, field in ((_OFF, "mjDSBL_", "disableflags"), (_ON, "mjENBL_", "enableflags"))
)
"""A feature for each of MuJoCo's flags, as `flag gravity`: of what is switched off, and of what is switched on."""

ENABLE["flag override"] = Feature(
    ENABLE["flag override"].problem,
    "opt.enableflags opt.o_friction opt.o_margin opt.o_solimp opt.o_solref",
    ENABLE["flag override"].find,
)
ENABLE["flag sleep"] = Feature(
    "bodies that sleep", "opt.enableflags opt.sleep_tolerance tree_sleep_policy", ENABLE["flag sleep"].find
)
FEATURES |= DISABLE | ENABLE

COMPUTING = frozenset(
    f"flag {short}"
    for short in (
        *("warmstart", "refsafe", "sensor", "midphase", "eulerdamp", "autoreset", "nativeccd", "island", "multiccd"),
        *("energy", "fwdinv", "invdiscrete", "diagexact"),
    )
)
"""Flags that change how MuJoCo computes or what it reports, and not what moves how: every engine may ignore them."""


def table() -> dict[str, list[str]]:
    """What is said of each field: the reason of `NO_EFFECT`, the group of `HONOURED`, or names of features."""
    said: dict[str, list[str]] = {}
    for groups in (NO_EFFECT, HONOURED, {name: feature.fields for name, feature in FEATURES.items()}):
        for group, fields in groups.items():
            for field in fields.split():
                said.setdefault(field, []).append(group)
    return said


def check_features(model: mujoco.MjModel, asset: str, engine: str, honoured: frozenset[str]) -> None:
    """Refuse what a model has and an engine does not simulate.

    Args:
        model: compiled.
        asset: the file's name, for the message.
        engine: the engine's name, likewise.
        honoured: the features of `FEATURES` that it simulates.

    Raises:
        ConfigError: names the first element with another feature.
    """
    for name, feature in FEATURES.items():
        if name not in honoured:
            for kind, element in feature.find(model):
                raise ConfigError(
                    f"{asset}: {kind} {element}: {feature.problem} cannot be expressed for engine {engine}"
                )
