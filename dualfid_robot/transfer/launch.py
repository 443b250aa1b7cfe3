"""`transfer.py` after its configuration is composed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, ListConfig

from dualfid_robot.atomic import require_writable
from dualfid_robot.config.output import plain_console
from dualfid_robot.config.progress import Progress, track
from dualfid_robot.config.values import check_seed, require_package
from dualfid_robot.errors import ConfigError
from dualfid_robot.export.networks import DIAL_HIGH, DIAL_LOW
from dualfid_robot.runs.checkpoint import output_folder, resolve_checkpoint
from dualfid_robot.settings import require_integer, require_number
from dualfid_robot.transfer.left_out import kept_table
from dualfid_robot.transfer.matrix import ADAPTED, BASE, Matrix, TransferRequest, silence_pools
from dualfid_robot.transfer.perturbations import parse_perturbations
from dualfid_robot.transfer.report import tables, unsupported_lines, write_report

POLICIES = {"base": BASE, "adapted": ADAPTED}
DEFAULT_SIMULATORS = ("mujoco", "mujoco_reduced")
FOLDER = "transfer"
_WIDTH = 160  # where the output is no terminal


def launch_transfer(cfg: DictConfig) -> None:
    """Check, evaluate, print, write.

    Raises:
        ConfigError: names what is wrong, before anything runs.
    """
    require_package("transfer", "matplotlib", "plots")
    console = plain_console(width=_WIDTH)
    request = parse_request(cfg)
    folder = _folder(str(cfg.out), request)
    require_writable(folder)
    silence_pools()
    with Progress("checking checkpoints and engines"):
        matrix = Matrix(request)
    for line in [*matrix.subject_lines(), *(contract.line() for contract in matrix.contracts)]:
        console.print(line, soft_wrap=not console.is_terminal)
    if matrix.differing:
        console.print(
            f"the checkpoints' tasks differ in {', '.join(matrix.differing)}: each is evaluated in its own",
            soft_wrap=not console.is_terminal,
        )
    cells = list(track(matrix.cells(), "evaluation", len(matrix)))
    with Progress("a random agent, for comparison"):
        random_returns = matrix.random_returns()
    for table in tables(matrix, cells, random_returns, console):
        console.print(table)
    if request.left_out:
        console.print(kept_table(matrix, cells))
    written = write_report(matrix, cells, random_returns, folder)
    for line in [*unsupported_lines(cells), *(f"written: {path}" for path in written)]:
        console.print(line, soft_wrap=True)


def parse_request(cfg: DictConfig) -> TransferRequest:
    """What a configuration asks for.

    Raises:
        ConfigError: a value that is not allowed.
    """
    checkpoints = _texts(cfg.checkpoint)
    if not checkpoints:
        raise ConfigError("checkpoint: name one or several, such as checkpoint=runs/…/nn/last")
    simulators, left_out = _texts(cfg.simulators), str(cfg.leave_out)
    if not simulators and cfg.simulators != "":
        raise ConfigError("simulators: name files of cfg/simulator, such as simulators=[mujoco,pybullet]")
    require_integer("num_envs", cfg.num_envs, 1)
    check_seed("seed", cfg.seed)
    return TransferRequest(
        checkpoints=tuple(dict.fromkeys(resolve_checkpoint(Path(text)) for text in checkpoints)),
        simulators=tuple(dict.fromkeys(simulators)) or (() if left_out else DEFAULT_SIMULATORS),
        left_out=left_out,
        dials=_dials(_texts(cfg.policies), _items(cfg.dial)),
        perturbations=parse_perturbations(_texts(cfg.perturb)),
        num_envs=cfg.num_envs,
        seed=cfg.seed,
    )


def _dials(policies: Sequence[str], dials: Sequence[object]) -> tuple[float, ...]:
    """λ of all named and dialled policies, without repetition, ascending."""
    for name in policies:
        if name not in POLICIES:
            raise ConfigError(f"policies={name}: allowed are {sorted(POLICIES)}")
    chosen = {POLICIES[name] for name in policies}
    for dial in dials:
        chosen.add(require_number("dial", dial, DIAL_LOW, DIAL_HIGH))
    if not chosen:
        raise ConfigError("policies=[] dial=[]: nothing to evaluate; name a policy or a setting of the dial")
    return tuple(sorted(chosen))


def _folder(out: str, request: TransferRequest) -> Path:
    """Where the results go: by default the folder of the first checkpoint's run."""
    folder = Path(out) if out else output_folder(request.checkpoints[0], FOLDER)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"out={folder}: is not a folder")
    return folder


def _items(value: object) -> list[object]:
    """A setting that holds one value, several, or none."""
    if isinstance(value, ListConfig):
        return list(value)
    return [] if value in ("", None) else [value]


def _texts(value: object) -> list[str]:
    return [str(item) for item in _items(value)]
