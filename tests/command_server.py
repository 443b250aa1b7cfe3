"""Commands forked from a process that has imported the program: each starts in half a second instead of four.

As a script, `python -P command_server.py SOCKET MODULE…`, it is that process: of any environment that has the program.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

# A program that hands a command over: its place, its environment, its standard output and error.
SHIM = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    request = [{command!r}, sys.argv[1:], os.getcwd(), dict(os.environ)]
    socket.send_fds(server, [json.dumps(request).encode()], [1, 2])
    sys.exit(int(server.recv(16)))
"""


class CommandServer:
    """The process that commands are forked from, and what asks it for one."""

    def __init__(self, python: Path, environment: Mapping[str, str], imported: Sequence[str]) -> None:
        """Start it.

        Args:
            python: an interpreter whose environment has the program.
            environment: variables, in the place of this process's own.
            imported: modules that the commands find imported.
        """
        self._folder = tempfile.TemporaryDirectory()
        self._address = str(Path(self._folder.name) / "socket")
        command = [str(python), "-P", __file__, self._address, *imported]
        self._process = subprocess.Popen(command, env=dict(environment))
        while not Path(self._address).exists():
            assert self._process.poll() is None, "the command server ended"
            time.sleep(0.05)

    def write_shim(self, path: Path, command: Path) -> None:
        """Write a program that does what a script of Python does, by this server."""
        path.write_text(SHIM.format(python=sys.executable, address=self._address, command=str(command)))
        path.chmod(0o755)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()


def next_request(listener: socket.socket) -> list[Any]:
    """Wait for commands. It returns in a process of each command's own, whose end another one reports."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            break
        connection.close()
    listener.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, descriptors, _, _ = socket.recv_fds(connection, 2**20, 2)
    command = os.fork()
    if command:
        _, status = os.waitpid(command, 0)
        connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    connection.close()
    for number, descriptor in enumerate(descriptors, 1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    request: list[Any] = json.loads(message)
    return request


def main(address: str, *imported: str) -> None:
    """Import the program, and run each command that is asked for."""
    from dualfid_robot.config.machine import set_environment

    set_environment()
    for module in imported:
        importlib.import_module(module)
    runpy.run_path(str(ROOT / "benchmarks" / "composed_once.py"))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{address}.new")
    listener.listen()
    os.rename(f"{address}.new", address)

    command, arguments, cwd, environment = next_request(listener)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    set_environment()
    sys.argv = [command, *arguments]
    sys.path.insert(0, str(Path(command).parent))
    runpy.run_path(command, run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
