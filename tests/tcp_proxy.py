"""A TCP proxy on 127.0.0.1 that can reset every connection through it, as a bad network does."""

import contextlib
import selectors
import socket
import struct
import threading


class TcpProxy:
    """Passes connections on to ``target``, a port of this machine; a context manager.

    Attributes:
        port: where it listens.
        target: the port that new connections are passed on to; 0 refuses them.
        resets: how many connections :meth:`reset` has broken.
    """

    def __init__(self, target: int = 0):
        self.target = target
        self.resets = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()

    def __enter__(self) -> "TcpProxy":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_exc_info) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.reset()

    def reset(self) -> None:
        """Break every connection on both sides, with a TCP reset and without delivering what is under way."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for side in pair:
                with contextlib.suppress(OSError):
                    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() resets
                    side.shutdown(socket.SHUT_RD)  # wakes the thread that reads it
                    side.close()
        self.resets += len(pairs)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                self._pairs.append((near, far))
            threading.Thread(target=self._pass_on, args=(near, far), daemon=True).start()

    def _pass_on(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError, KeyError), selectors.DefaultSelector() as ready:
            ready.register(near, selectors.EVENT_READ, far)
            ready.register(far, selectors.EVENT_READ, near)
            while True:
                for key, _ in ready.select():
                    data = key.fileobj.recv(65536)
                    if not data:
                        raise OSError
                    key.data.sendall(data)
        with self._lock:
            self._pairs = [pair for pair in self._pairs if pair != (near, far)]
        for side in (near, far):
            with contextlib.suppress(OSError):
                side.close()
