"""Files and folders that several processes write to, disks that fill, processes that are killed."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dualfid_robot.atomic import is_writable, locked, remove_partial, replaced, write_text
from dualfid_robot.errors import ConfigError
from dualfid_robot.runs.checkpoint import load_checkpoint, save_checkpoint


def python(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_reader_sees_whole_files_while_several_write(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    texts = [letter * 100_000 for letter in "abc"]
    write_text(path, texts[0])

    def write(text: str) -> None:
        for _ in range(30):
            write_text(path, text)

    writers = [threading.Thread(target=write, args=(text,)) for text in texts]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        seen.add(path.read_text())
    assert seen <= set(texts)
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), replaced(path) as temporary:
        temporary.write_text("half of the ne")
        raise ZeroDivisionError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    save_checkpoint(path, {"value": 1})
    code = f"""
import resource, signal, torch
from pathlib import Path
from dualfid_robot.runs.checkpoint import save_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    save_checkpoint(Path({str(path)!r}), {{"value": torch.zeros(100_000)}})
except OSError as error:
    print(error.errno, error.filename)
"""
    output, errors = python(code).communicate(timeout=60)
    assert output.split() == [str(errno.EFBIG), str(path)], errors
    assert load_checkpoint(path)["value"] == 1 and list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from dualfid_robot.atomic import replaced
with replaced(Path({str(tmp_path / "x.pth")!r})) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert python(code).wait(timeout=60) == -signal.SIGKILL
    (partial,) = tmp_path.iterdir()
    assert partial.name.startswith(".") and partial.suffix == ".pth"
    kept = tmp_path / ".partial.pth"
    kept.touch()
    remove_partial(tmp_path, "*.txt")
    assert partial.exists()
    remove_partial(tmp_path, "*.pth")
    assert list(tmp_path.iterdir()) == [kept]


def test_a_command_that_is_terminated_leaves_nothing_half_written(tmp_path: Path) -> None:
    code = f"""
import os, signal, time
from pathlib import Path
from dualfid_robot.atomic import replaced
from dualfid_robot.config.command_line import run
def job(cfg):
    with replaced(Path({str(tmp_path / "x.mp4")!r})) as temporary:
        temporary.write_text("half")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
run("evaluate", job, "evaluate")
"""
    assert python(code).wait(timeout=60) == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_locked_until_its_process_dies(tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from dualfid_robot.atomic import locked
with locked(Path({str(tmp_path)!r}), "checkpoint=x"):
    print("locked", flush=True)
    time.sleep(60)
"""
    process = python(code)
    assert process.stdout is not None and process.stdout.readline() == "locked\n"
    with pytest.raises(ConfigError) as refused, locked(tmp_path, "checkpoint=here"):
        pass
    assert str(refused.value).startswith(f"checkpoint=here: process {process.pid} on ")
    assert str(refused.value).endswith(f" is writing to {tmp_path}; wait until it has ended")
    process.kill()
    process.wait(timeout=60)
    with locked(tmp_path, "checkpoint=here"):
        pass


def test_a_folder_that_is_none_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert is_writable(tmp_path) and not list(tmp_path.glob("tmp*"))
    assert not is_writable(tmp_path / "file") and not is_writable(tmp_path / "absent")
