"""What a checkpoint was made of: its task, settings, robot and the task's code. With this a later change is noticed."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from dualfid_robot.config.experiment import Experiment
from dualfid_robot.envs.foreign_task import ForeignTask
from dualfid_robot.envs.task import Task

# Fields of a compiled model that say how it looks, or how MuJoCo searches for contacts, but not how it moves.
_LOOKS = ("cam_", "light_", "mat_", "tex_", "text_", "skin_", "bvh_", "oct_", "mesh_tex", "name", "signature")
_LOOKS_OF = ("_rgba", "_matid", "_group", "pathadr", "_bvhadr", "_bvhnum", "_octadr", "_octnum")
_NAMED = {kind: kind for kind in ("body", "geom", "site", "sensor", "tendon")} | {"joint": "jnt", "actuator": "u"}
_SMALLEST = 1e-12  # below this, rounding on another machine


def identity(experiment: Experiment) -> dict[str, Any]:
    """What a checkpoint holds of the experiment that made it.

    Returns:
        `task` is its name, and `settings` the resolved configuration as JSON. `robot` has a digest of each field of the
        robot's compiled model. `task_code` is a digest of the code of the task (`code_digest`).
    """
    return {
        "task": experiment.task.name,
        "settings": json.dumps(experiment.settings),
        "robot": robot_digests(experiment.robot.model),
        "task_code": _task_code(experiment.make_task()),
    }


def differences(saved: Mapping[str, Any], experiment: Experiment) -> list[str]:
    """What has changed since a checkpoint was saved, one clause each. It is empty where nothing has.

    Only what a run reads from files is compared: settings are in the checkpoint itself. A field that one version of
    MuJoCo has and the other lacks is no difference.
    """
    return changes(saved, identity(experiment), experiment)


def changes(saved: Mapping[str, Any], now: Mapping[str, Any], experiment: Experiment) -> list[str]:
    """`differences` from an identity that is known already."""
    found = []
    before = saved["robot"]
    changed = {key for key in before.keys() & now["robot"].keys() if before[key] != now["robot"][key]}
    fields = sorted(changed, key=lambda field: (field != "names", field))  # the order of joints first
    if fields:
        shown = ", ".join(fields[:5]) + (f" and {len(fields) - 5} more" if len(fields) > 5 else "")
        found.append(f"the robot {experiment.robot.path.name} has changed in {shown}")
    if saved["task_code"] != now["task_code"]:
        found.append(f"the code of task {experiment.task.name} has changed")
    return found


def robot_digests(model: mujoco.MjModel) -> dict[str, str]:
    """A digest of each field of a compiled model that affects how the robot moves, and of its names."""
    fields = {name: getattr(model, name) for name in dir(model) if not name.startswith("_")}
    fields = {
        name: value
        for name, value in fields.items()
        if isinstance(value, np.ndarray) and not name.startswith(_LOOKS) and not name.endswith(_LOOKS_OF)
    }
    fields |= {f"opt.{name}": getattr(model.opt, name) for name in dir(model.opt) if not name.startswith("_")}
    digests = {name: _digest(_rounded(np.asarray(value)).tobytes()) for name, value in fields.items()}
    names = [[getattr(model, kind)(i).name for i in range(getattr(model, f"n{size}"))] for kind, size in _NAMED.items()]
    return digests | {"names": _digest(json.dumps(names).encode())}


def code_digest(task: type[Task]) -> str:
    """A digest of the modules that define a task's class and its bases, and of those that they import from the folder
    of the task. Comments and docstrings do not count."""
    classes = [cls for cls in task.__mro__ if issubclass(cls, Task) and cls is not Task]
    return _digest_of([*map(_tree, classes), *_imported(classes, task.__module__.rpartition(".")[0])])


def _task_code(task: Task) -> str:
    """The digest of what computes a task: of another program's class where it is one."""
    return _digest_of(list(map(_tree, task.code()))) if isinstance(task, ForeignTask) else code_digest(type(task))


def _tree(cls: type) -> ast.Module:
    """The code of the module of a class."""
    module = inspect.getmodule(cls)
    assert module is not None
    return ast.parse(inspect.getsource(module))


def _digest_of(modules: list[ast.Module]) -> str:
    return _digest("\n".join(map(_bare_code, modules)).encode())


def _imported(classes: list[type], package: str) -> list[ast.Module]:
    """The modules of a package that the classes' modules import, and those that these import."""
    known = {cls.__module__ for cls in classes}
    own = [_tree(cls) for cls in classes if cls.__module__.rpartition(".")[0] == package]
    found = list(own)
    for each in found:
        for name in sorted(set(_siblings(each, package)) - known):
            known.add(name)
            spec = importlib.util.find_spec(name)
            if spec is not None and spec.origin is not None and spec.origin.endswith(".py"):
                found.append(ast.parse(Path(spec.origin).read_bytes()))
    return found[len(own) :]


def _siblings(tree: ast.Module, package: str) -> Iterator[str]:
    """Full names of what a module imports from its package, `from .base import x` as base and base.x."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            paths = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, (package if node.level == 1 else "", node.module)))
            paths = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (path for path in paths if path.rpartition(".")[0] == package != "")


def _bare_code(tree: ast.Module) -> str:
    """The code of a module, without comments and docstrings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _rounded(values: np.ndarray) -> np.ndarray:
    """Real values in single precision, others unchanged. Compilers differ in the last digits of doubles."""
    if values.dtype.kind != "f":
        return values
    return np.where(np.abs(values) < _SMALLEST, 0.0, values).astype(np.float32)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
