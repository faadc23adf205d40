"""One connection of a client: uvicorn's, with an end to every wait, and `server.HEADERS` on every answer.

uvicorn waits for ever for the headers of a request and for a client that does not read, takes any number of
connections, and answers what is no HTTP by itself, without asking the app.
"""

import asyncio
import json

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from mim_jax.deploy.server.app import HEADERS


class Connection(H11Protocol):
    """To be given to `uvicorn.Config(http=...)`."""

    header_seconds = 10.0  # from a request's first byte, or from the connection, to the end of the headers
    stalled_seconds = 30.0  # in which a client has to read 64 KiB
    at_most = 512  # connections; many systems allow a process 1024 open files

    _headers_end: asyncio.TimerHandle | None = None
    _reading_ends: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes one more; where there are too many, the one whose headers have been awaited longest goes."""
        # uvicorn forgets a connection only some time after it was closed.
        others = [each for each in self.connections if not each.transport.is_closing()]
        super().connection_made(transport)
        if len(others) >= self.at_most:
            waiting = [each for each in others if isinstance(each, Connection) and each._headers_end]
            oldest = min(waiting, key=lambda each: each._headers_end.when(), default=self)  # type: ignore[union-attr]
            oldest.transport.abort()
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the clocks, which would keep the connection in memory."""
        self._forget_headers()
        self._forget_reading()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Starts a clock at the first byte of a request and stops it at the end of its headers.

        What is left of a body after its answer counts as the next request, so it comes to an end as well.
        """
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            self._await_headers()
        else:
            self._forget_headers()

    def on_response_complete(self) -> None:
        """Starts the clock for what is left to be read."""
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            self._await_reading()

    def pause_writing(self) -> None:
        """Starts the clock for the client to read."""
        super().pause_writing()
        self._await_reading()

    def resume_writing(self) -> None:
        """Starts it anew: the client has read."""
        super().resume_writing()
        self._await_reading()

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP, where an answer is still possible."""
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
            self._reading_ends = None

    def _end_if_unread(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()
