"""Robots that were not made for this program, and a task for any of them."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from omegaconf import DictConfig

from dualfid_robot.config.engines import compose_config, hydra_apart

QUICK = ("simulator.high.threads=1", "episodes=4", "num_envs=8")
YAML = """\
defaults: [common/base@_here_, _self_]
name: AnyRobot
env: {numEnvs: 8, episodeLength: 50}
asset: {assetFileName: nothing.xml, feet: []}
sim: {dt: 0.02}
"""


def set_up_user(folder: Path, asset: Path, feet: tuple[str, ...]) -> list[str]:
    """Make a user's folder with a task for an asset; gives the overrides that find it."""
    config_dir = folder / "cfg"
    shutil.copytree(Path(__file__).parent / "users_tasks", folder / "tasks")
    for group in ("task", "train"):
        (config_dir / group).mkdir(parents=True)
    text = YAML.replace("nothing.xml", str(asset)).replace("feet: []", f"feet: [{', '.join(feet)}]")
    (config_dir / "task" / "AnyRobot.yaml").write_text(text)
    (config_dir / "train" / "AnyRobotPPO.yaml").write_text(
        "defaults: [CartpolePPO, _self_]\nparams: {config: {name: AnyRobot, minibatch_size: 32}}\n"
    )
    return [f"hydra.searchpath=[file://{config_dir}]", f"+config_dir={config_dir}"]


def compose_check(*overrides: str) -> DictConfig:
    """The configuration of a short check."""
    with hydra_apart():
        return compose_config([*QUICK, *overrides], "check_task")


def robots_of_others() -> dict[str, tuple[Path, tuple[str, ...]]]:
    """MJCF files of Gymnasium and dm_control, where these are installed, and which of their bodies are feet."""
    found: dict[str, tuple[Path, tuple[str, ...]]] = {}
    for package, folder, names in (
        (
            "gymnasium",
            "envs/mujoco/assets",
            {
                "half_cheetah": ("bfoot", "ffoot"),
                "hopper": ("foot",),
                "walker2d": ("foot", "foot_left"),
                "swimmer": (),
                "humanoid": ("right_foot", "left_foot"),
                "pusher": ("r_wrist_roll_link", "object"),
            },
        ),
        (
            "dm_control",
            "suite",
            {
                "walker": ("right_foot", "left_foot"),
                "humanoid": ("right_foot", "left_foot"),
                "quadruped": ("toe_front_left", "toe_front_right", "toe_back_left", "toe_back_right"),
                "fish": (),
            },
        ),
    ):
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            root = Path(spec.origin).parent / folder
            found |= {f"{package} {name}": (root / f"{name}.xml", feet) for name, feet in names.items()}
    return found
