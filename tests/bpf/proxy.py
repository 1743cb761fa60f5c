"""A transparent listener in place of Envoy where only the way to the proxy matters, not what the proxy does."""

from __future__ import annotations

import socket
import threading

from tests.bpf.galaxy import Galaxy, inside

IP_TRANSPARENT, IPV6_TRANSPARENT, SO_MARK = 19, 75, 36


class StandInProxy:
    """Answers every line with what it sees: `proxy <original destination> <client>`. On the wildcard address, so that
    the accepted socket's own address is the original destination; its mark is that of an accepted socket."""

    def __init__(self, galaxy: Galaxy, port: int, mark: int) -> None:
        self.port = port
        self._listeners = [self._listen(galaxy, family, mark) for family in (socket.AF_INET, socket.AF_INET6)]
        self._accepted: list[socket.socket] = []
        galaxy.at_end(self.close)

    def _listen(self, galaxy: Galaxy, family: socket.AddressFamily, mark: int) -> socket.socket:
        with inside(galaxy.node):
            made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
        else:
            made.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
        made.bind(("", self.port))
        made.listen(64)
        threading.Thread(target=self._accept, args=(made,), daemon=True).start()
        return made

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self._accepted.append(connection)
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        destination, client = connection.getsockname(), connection.getpeername()
        try:
            while connection.recv(4096):
                connection.sendall(f"proxy {destination[0]} {destination[1]} {client[0]} {client[1]}\n".encode())
        except OSError:
            return
        finally:
            connection.close()

    def close(self) -> None:
        """As if the process were killed: no more listening, live connections are reset."""
        for listener in self._listeners:
            try:
                listener.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            listener.close()
        for connection in self._accepted:
            try:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                connection.shutdown(socket.SHUT_RD)
            except OSError:
                pass
            connection.close()
