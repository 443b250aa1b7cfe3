"""`export.py`: what is asked for, and the folder that it goes to. The work is done in export/exporter.py."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig, ListConfig

from dualfid_robot.config.command_line import describe
from dualfid_robot.config.output import plain_console
from dualfid_robot.config.progress import Progress
from dualfid_robot.config.values import check_seed, require_package
from dualfid_robot.errors import ConfigError
from dualfid_robot.export.request import ExportRequest
from dualfid_robot.runs.checkpoint import output_folder, resolve_checkpoint
from dualfid_robot.settings import require_integer

logger = logging.getLogger(__name__)

FORMATS = ("onnx", "torchscript", "cpp")
POLICIES = ("adapted", "base", "dial")
FOLDER = "export"
_EPISODES_IN_TRAINING = 16
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_SUMS = "SHA256SUMS"  # as in onboard/runtime.py, which needs onnxruntime


def launch_export(cfg: DictConfig) -> None:
    """Export a checkpoint and say what the checks found."""
    require_packages()
    if not cfg.checkpoint:
        raise ConfigError("checkpoint: name the policy to export, such as checkpoint=runs/…/nn/last")
    if cfg.policy not in POLICIES:
        raise ConfigError(f"policy={cfg.policy}: allowed are {list(POLICIES)}")
    require_integer("num_envs", cfg.num_envs, 2)
    check_seed("seed", cfg.seed)
    formats, simulators = choose_formats(_names(cfg.format)), _names(cfg.simulators)
    request = ExportRequest(formats, cfg.policy, cfg.num_envs, cfg.seed, cfg.simulator, simulators, cfg.sim_device)
    checkpoint = resolve_checkpoint(Path(str(cfg.checkpoint)))
    folder = Path(str(cfg.out)) if cfg.out else output_folder(checkpoint, FOLDER)
    with Progress("export") as progress:
        lines = export(checkpoint, request, folder, progress.say)
    console = plain_console()
    for line in lines:
        console.print(line, soft_wrap=not console.is_terminal)
    console.print(f"exported to {folder}", soft_wrap=True)


def _names(value: object) -> tuple[str, ...]:
    """A setting that holds one name, several, or none."""
    if isinstance(value, ListConfig):
        return tuple(map(str, value))
    return (str(value),) if value else ()


def require_packages() -> None:
    """Raise ConfigError where a package that exporting needs is not installed."""
    for package in _PACKAGES:
        require_package("export", package, "export")


def choose_formats(asked: Sequence[str] = ()) -> tuple[str, ...]:
    """The formats to write; none asked for: all that this machine can check.

    Raises:
        ConfigError: an unknown one, or C++ without a compiler.
    """
    unknown = [name for name in asked if name not in FORMATS]
    if unknown:
        raise ConfigError(f"format={unknown[0]}: allowed are {list(FORMATS)}")
    from dualfid_robot.export.cpp.compiled_header import find_compiler  # needs what `require_packages` looks for

    compiler = find_compiler()
    if "cpp" in asked and not compiler:
        raise ConfigError("format=cpp: no C++ compiler to check it with (looked for c++, g++, clang++ and $CXX)")
    if not asked and not compiler:
        logger.warning("no C++ compiler to check policy.hpp with: it is left out")
    return tuple(
        name for name in FORMATS if name == "onnx" or name in asked or (not asked and (name != "cpp" or compiler))
    )


def export(
    checkpoint: Path, request: ExportRequest, folder: Path, say: Callable[[str], None] = lambda stage: None
) -> list[str]:
    """Export a checkpoint; the folder appears, or takes another export's place, when all checks have passed.

    Args:
        say: takes a name of what begins now.

    Returns:
        a report, line by line.

    Raises:
        ConfigError: names what is wrong. The folder is then as it was.
    """
    from dualfid_robot.export.exporter import write_export  # needs what `require_packages` looks for

    with _in_place_of(folder) as temporary:
        return write_export(checkpoint, request, temporary, say).lines()


class BestExport:
    """Exports a run's best policy whenever there is a new one. Time for it is short: an export waits until ten times as
    long has passed as the last one took. What cannot be exported is an error in the log, and training goes on."""

    def __init__(self, checkpoint: Path) -> None:
        """Prepare for the best policy of a run.

        Args:
            checkpoint: where the run saves it.
        """
        self._checkpoint = checkpoint
        self._request = ExportRequest(choose_formats(), num_envs=_EPISODES_IN_TRAINING)
        self._exported = 0.0
        self._seconds = self._finished = 0.0

    def __call__(self, last: bool) -> None:
        """Export, if there is something new.

        Args:
            last: training ends here, so that nothing need wait.
        """
        if not self._checkpoint.is_file():
            if last:
                logger.warning("export=True: no best policy was saved, so none was exported; see save_best_after")
            return
        started, saved = time.monotonic(), self._checkpoint.stat().st_mtime
        if saved == self._exported or (not last and started - self._finished < 10.0 * self._seconds):
            return
        folder = output_folder(self._checkpoint, FOLDER)
        try:
            export(self._checkpoint, self._request, folder)
            self._request = dataclasses.replace(self._request, graphs=folder)
            logger.info("exported the best policy to %s", folder)
        except (ConfigError, OSError) as error:
            logger.error("export=True: %s", describe(error))
        self._exported, self._finished = saved, time.monotonic()
        self._seconds = self._finished - started


@contextmanager
def _in_place_of(folder: Path) -> Iterator[Path]:
    """An empty folder that becomes `folder` at the end, or vanishes after an error."""
    if folder.exists() and not (folder / _SUMS).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"out={folder}: exists and is not an export; name another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    place = folder.absolute()
    beside = str(place.with_name(f".{place.name}."))
    try:
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as name:
            new, old = Path(name) / "new", Path(name) / "old"
            new.mkdir()
            old.mkdir()
            yield new
            _put(new, place, old)
    except OSError as error:
        if error.errno is None or not str(error.filename or beside).startswith(beside):
            raise
        raise OSError(error.errno, error.strerror, str(folder)) from error


def _put(new: Path, folder: Path, old: Path) -> None:
    """Move a folder to its place, and what is there into another one."""
    while True:  # another process may put an export there at the same moment
        with contextlib.suppress(FileNotFoundError):
            folder.rename(old / str(uuid.uuid4()))
        try:
            new.rename(folder)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
