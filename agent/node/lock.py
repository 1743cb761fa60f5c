"""One agent per run directory and per network namespace: locks that the kernel drops with the process, however it
ends."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from pathlib import Path

from agent.errors import EnvironmentProblem

NAME = "\0deflector"  # an abstract Unix socket: its names belong to the network namespace
PEER = struct.Struct("=iII")  # struct ucred: pid, uid, gid


class NodeLock:
    """Holds `path` locked from `acquire` to `release`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def acquire(self) -> None:
        """Raise EnvironmentProblem naming the process that holds the lock."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "another process"
            os.close(fd)
            raise EnvironmentProblem(
                f"{self._path.parent} is in use by process {holder}: stop it, or choose another --run-dir"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        self._fd = fd

    def release(self) -> None:
        """Unlock and remove the file; safe to call twice."""
        if self._fd >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1


class HostLock:
    """Holds this network namespace: helper device, rules and table exist once there, whatever the run directory.

    Anybody may bind the name, so only root is believed to be another agent.
    """

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def acquire(self) -> None:
        """Raise EnvironmentProblem naming the process that holds the namespace."""
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            bound.bind(NAME)
        except OSError:
            bound.close()
            self._refuse_beside_root()
            return
        bound.listen(8)
        self._socket = bound

    def release(self) -> None:
        """Safe to call twice."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _refuse_beside_root(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.setblocking(False)
            try:
                asking.connect(NAME)
            except BlockingIOError:  # whoever it is has been asked often
                raise EnvironmentProblem("another deflector runs on this host: stop it first") from None
            except ConnectionRefusedError:
                return  # nobody listens: no agent
            pid, uid, _ = PEER.unpack(asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
        if uid == 0:
            raise EnvironmentProblem(f"another deflector runs on this host, process {pid}: stop it first")
