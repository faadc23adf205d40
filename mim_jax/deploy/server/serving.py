"""The running server: listens on an address, compiles the detector, serves the app and limits connections."""

import asyncio
import functools
import json
import logging
import os
import socket
from collections.abc import Callable
from importlib.metadata import version

import h11
import jax
import numpy as np
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from mim_jax.data.images import MIN_SIDE
from mim_jax.data.quality import Gate
from mim_jax.decide.novelty_detector import NoveltyDetector
from mim_jax.deploy.server.app import HEADERS, LOOPBACK, create_app


def serve(
    detector: NoveltyDetector,
    *,
    alpha: float,
    gate: Gate,
    folder: str | os.PathLike[str] | None,
    host: str,
    port: int,
    tell: Callable[[str], None],
) -> None:
    """Serve until interrupted.

    Args:
      alpha: share of mpox that may be missed, as in `NoveltyDetector.assess`.
      folder: folder of the app; None = only the scorer.
      host: address to listen on; any but a loopback address causes a warning.
      port: port to listen on; 0 = any free port.
      tell: called with messages for the user: a warning, and the address of the server.

    Raises:
      ValueError: the folder is not an app, or the server cannot listen on the address.
    """
    local = host in LOOPBACK
    assess = functools.partial(detector.assess, alpha=alpha)
    app = create_app(
        assess,
        image_size=detector.image_size,
        min_side=max(MIN_SIDE, detector.min_side),
        gate=gate,
        folder=folder,
        versions={"mim_jax": version("mim-jax"), "jax": jax.__version__},
        hosts=LOOPBACK if local else None,
    )
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Before the network is compiled, so that an address already in use is reported at once.
        try:
            listener.bind((host, port))
            listener.listen(128)
        except OSError as error:
            raise ValueError(
                f"the server cannot listen on {host}, port {port} ({error.strerror}): choose another "
                "--port or --host"
            ) from None
        if not local:
            tell(
                f"warning: anyone who can reach {host} can use this server, which has no authentication "
                "and no TLS: put a proxy that has both in front of it"
            )
        assess(np.zeros((1, detector.image_size, detector.image_size, 3), np.uint8))
        name = f"[{host}]" if ":" in host else host
        tell(f"serving: http://{name}:{listener.getsockname()[1]}/ (Ctrl+C to stop)")
        # No access log: it would record who asked, and when. No warnings: every malformed request or form
        # causes one, so anyone could fill a disk with them.
        logging.getLogger("python_multipart").setLevel(logging.ERROR)
        settings = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_keep_alive=5,
        )
        uvicorn.Server(settings).run(sockets=[listener])


class Connection(H11Protocol):
    """uvicorn's connection with a timeout for every wait, and `HEADERS` on every answer.

    uvicorn itself waits forever for headers and for clients that do not read, refuses honest clients with the
    rest beyond its connection limit, and answers malformed HTTP without asking the app.
    docs/reliability.md has measurements of other servers.
    """

    header_seconds = 10.0  # from a request's first byte, or from the connection, to the end of the headers
    stalled_seconds = 30.0  # time for a client to read 64 KiB
    at_most = 512  # connections; many systems allow a process 1024 open files

    _headers_end: asyncio.TimerHandle | None = None
    _reading_ends: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection; beyond 512, close the one that has waited longest for its headers."""
        # uvicorn removes a connection from its list only some time after closing it.
        others = [each for each in self.connections if not each.transport.is_closing()]
        super().connection_made(transport)
        if len(others) >= self.at_most:
            waiting = [each for each in others if isinstance(each, Connection) and each._headers_end]
            oldest = min(waiting, key=lambda each: each._headers_end.when(), default=self)  # type: ignore[union-attr]
            oldest.transport.abort()
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timers, which would keep the connection in memory."""
        self._forget_headers()
        self._forget_reading()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Start a timer at the first byte of a request and stop it at the end of its headers.

        The rest of a body after its answer counts as the next request, so it is limited as well.
        """
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            self._await_headers()
        else:
            self._forget_headers()

    def on_response_complete(self) -> None:
        """Start the timer for the client to read the rest of the answer."""
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            self._await_reading()

    def pause_writing(self) -> None:
        """Start the timer for the client to read."""
        super().pause_writing()
        self._await_reading()

    def resume_writing(self) -> None:
        """Restart the timer, because the client has read."""
        super().resume_writing()
        self._await_reading()

    def send_400_response(self, msg: str) -> None:
        """Answer malformed HTTP, if an answer is still possible."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        fixed = {"content-type": "application/json", "cache-control": "no-store", "connection": "close"}
        content = json.dumps({"detail": msg}).encode()
        response = h11.Response(
            status_code=400, reason=b"Bad Request", headers=list((fixed | HEADERS).items())
        )
        for event in (response, h11.Data(data=content), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _await_headers(self) -> None:
        if self._headers_end is None:
            self._headers_end = self.loop.call_later(self.header_seconds, self.transport.abort)

    def _forget_headers(self) -> None:
        if self._headers_end is not None:
            self._headers_end.cancel()
            self._headers_end = None

    def _await_reading(self) -> None:
        self._forget_reading()
        self._reading_ends = self.loop.call_later(self.stalled_seconds, self._end_if_unread)

    def _forget_reading(self) -> None:
        if self._reading_ends is not None:
            self._reading_ends.cancel()

    def _end_if_unread(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()
