"""What a user may not read or write is said in one line, and is not taken for absent."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dualfid_robot import cli
from dualfid_robot.atomic import is_writable, locked, require_writable
from dualfid_robot.config.command_line import describe, exit_with
from dualfid_robot.config.faulty_file import check_config_dirs
from dualfid_robot.envs.registry import task_names
from dualfid_robot.errors import ConfigError
from dualfid_robot.play.choice import _newest
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.runs.run_log import newest_checkpoint

PERMISSIONS = 0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, by which root ignores them


@contextmanager
def as_ordinary_user() -> Iterator[None]:
    """Obey permissions, as root too."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, capabilities = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, capabilities) == 0
    before = capabilities[0]  # those in effect; what is permitted stays, so that they can be had back
    capabilities[0] = before & ~PERMISSIONS
    assert libc.capset(header, capabilities) == 0
    try:
        yield
    finally:
        capabilities[0] = before
        assert libc.capset(header, capabilities) == 0


@pytest.fixture
def shut(tmp_path: Path) -> Iterator[Path]:
    """A folder that may be neither read nor written, in the present one; it holds a checkpoint and a YAML."""
    folder = tmp_path / "shut"
    (folder / "nn").mkdir(parents=True)
    for name in ("nn/last.pth", "x.yaml"):
        (folder / name).write_text("")
    folder.chmod(0)
    yield folder
    folder.chmod(0o755)


def read_robot(folder: Path) -> None:
    file = folder.parent / "robot.xml"
    file.write_text("<mujoco/>")
    file.chmod(0)
    RobotModel(file)


def read_settings(folder: Path) -> None:
    sys.argv[1:] = [f"--config-dir={folder}"]
    check_config_dirs()


def read_nested_settings(folder: Path) -> None:
    sys.argv[1:] = [f"--config-dir={folder.parent}"]
    check_config_dirs()


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (read_robot, r"asset file .*robot\.xml: cannot be read \(Permission denied\)"),
        (read_settings, ".*shut: Permission denied"),
        (read_nested_settings, ".*shut: Permission denied"),
        (lambda folder: task_names([folder]), ".*shut: Permission denied"),
        (lambda folder: require_writable(folder / "a" / "b"), ".*shut/a.*: Permission denied"),
    ],
)
def test_what_may_not_be_read_or_written_is_named(
    act: Callable[[Path], object], message: str, shut: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["x"])
    with as_ordinary_user(), pytest.raises((ConfigError, OSError)) as refused:
        act(shut)
    assert re.fullmatch(message, describe(refused.value)), describe(refused.value)


def test_runs_that_may_not_be_read_are_not_taken_for_none(shut: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else play.py would play the policy that ships in the place of the newest run's."""
    monkeypatch.chdir(shut.parent)
    shut.rename("runs")
    with as_ordinary_user():
        for look in (lambda: newest_checkpoint(None), lambda: _newest("Ant")):
            with pytest.raises(PermissionError) as refused:
                look()
            assert describe(refused.value) == "runs: Permission denied"
    Path("runs").rename(shut)


def test_a_run_that_may_not_be_read_is_one_line(
    shut: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", f"checkpoint={shut}"])
    with as_ordinary_user(), pytest.raises(SystemExit) as ended:
        cli._read_run()
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {shut}/last.pth: Permission denied\n"


def test_what_is_compiled_need_not_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where neither the package's folder nor the user's home can be written."""
    caching = pytest.importorskip("numba.core.caching")
    from dualfid_robot.policies import bfloat16_kernels

    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    assert not bfloat16_kernels.can_be_kept()


def test_a_place_that_is_not_there_yet_is_writable(tmp_path: Path) -> None:
    require_writable(tmp_path / "a" / "b")
    assert is_writable(tmp_path) and not list(tmp_path.iterdir())


def test_a_lock_on_a_full_disk_names_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, text: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left") as refused, locked(tmp_path, "x"):
        pass
    monkeypatch.undo()
    assert describe(refused.value) == f"{tmp_path}/lock: No space left on device"


def test_no_place_for_temporary_files_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nowhere"])
    with pytest.raises(FileNotFoundError) as refused:
        tempfile._get_default_tempdir()
    with pytest.raises(SystemExit):
        exit_with(refused.value)
    assert capsys.readouterr().err == "error: No usable temporary directory found in ['/nowhere']\n"
