"""Connections of bad clients are closed, and every answer has the headers, even to input that is not HTTP."""

import asyncio
import http.client
import logging
import socket
import threading
import time
from contextlib import contextmanager

import pytest

pytest.importorskip("fastapi")
import uvicorn

from mim_jax.deploy.server.app import HEADERS, Limits, create_app
from mim_jax.deploy.server.serving import Connection
from tests.deploy.test_server import SIZE, assess, picture
from tests.launching import LIMIT

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
START = b'--x\r\nContent-Disposition: form-data; name="image"; filename="<script>.png"\r\n\r\n'


class Hasty(Connection):
    header_seconds = 0.3
    stalled_seconds = 0.4
    at_most = 12


@contextmanager
def serving(folder=None, **limits):
    """Run a server in a thread; yield its port."""
    app = create_app(assess, image_size=SIZE, folder=folder, limits=Limits(**limits))
    settings = uvicorn.Config(
        app,
        http=Hasty,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=1,
    )
    server = uvicorn.Server(settings)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def connect(port, data=b"", **options):
    connection = socket.socket()
    if "receive" in options:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, options["receive"])
    connection.settimeout(LIMIT)
    connection.connect(("127.0.0.1", port))
    connection.sendall(data)
    return connection


def answer(connection):
    """Status and content of an answer; checks that all headers are there."""
    reply = http.client.HTTPResponse(connection)
    reply.begin()
    assert HEADERS.items() <= {name.lower(): value for name, value in reply.getheaders()}.items()
    assert "no-" in reply.getheader("cache-control") and reply.getheader("server") is None
    return reply.status, reply.read()


def ended(connection, drip=b"", most=LIMIT):
    """Whether the server closes the connection, whatever else is sent."""
    end = time.monotonic() + most
    try:
        while time.monotonic() < end:
            connection.settimeout(0.05)
            try:
                if not connection.recv(65536):
                    return True
            except TimeoutError:
                connection.sendall(drip)
    except OSError:
        return True
    finally:
        connection.close()
    return False


def test_what_is_no_http_is_answered_with_all_headers_and_without_a_word_in_the_log(tmp_path, caplog):
    caplog.set_level(logging.ERROR)
    (tmp_path / "index.html").write_text("<p>app")
    chunked = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    with serving(tmp_path) as port:
        for bad in (
            b"x\r\n\r\n",
            GET.replace(b"Host:", b"Host :"),
            chunked + b"zz\r\n",
            b"\x16\x03\x01" * 9 + b"\r\n\r\n",
        ):
            with connect(port, bad) as connection:
                status, content = answer(connection)
                assert status == 400 and b"Traceback" not in content
                assert ended(connection)
        etag = b"GET / HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: *\r\n\r\n"
        with connect(port, etag) as connection:
            assert answer(connection) == (304, b"")
    assert not caplog.records


def test_a_fault_of_the_server_itself_has_the_headers_too(monkeypatch, caplog):
    caplog.set_level(logging.CRITICAL)

    def fail(*_):
        raise RuntimeError("a secret of the machine")

    monkeypatch.setattr("mim_jax.deploy.server.app.Environment", fail)
    with serving() as port, connect(port, GET) as connection:
        assert answer(connection) == (500, b'{"detail":"the server failed"}')


def test_slow_headers_idle_connections_and_endless_bodies_are_ended():
    endless = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999999\r\n\r\n"
    with serving() as port:
        for first, drip in ((b"", b""), (b"GET / HT", b"x"), (GET, b""), (GET, b"G"), (endless, b"x")):
            assert ended(connect(port, first), drip), first
        # Two requests at once are answered one after the other, within the time of the first.
        with connect(port, GET + GET) as connection:
            assert answer(connection)[0] == 200


def test_a_client_that_does_not_read_is_ended(tmp_path):
    (tmp_path / "index.html").write_text("<p>app")
    size = 32 * 2**20
    (tmp_path / "large.bin").write_bytes(bytes(size))
    with serving(tmp_path) as port:
        ask = GET.replace(b"/ ", b"/large.bin ", 1)
        with connect(port, ask, receive=4096) as idle, connect(port, ask) as reader:
            assert len(answer(reader)[1]) == size
            time.sleep(1.2)
            got = 0
            try:
                while data := idle.recv(2**20):
                    got += len(data)
            except OSError:
                pass
            assert got < size


def test_beyond_the_limit_the_connection_waiting_longest_for_headers_is_closed():
    with serving() as port:
        held = [connect(port, b"GET / HT") for _ in range(3 * Hasty.at_most)]
        with connect(port, GET) as honest:
            assert answer(honest)[0] == 200
        assert ended(held[0], most=0.1)
        for connection in held:
            connection.close()


def test_slow_uploads_keep_nobody_waiting_and_hold_only_what_they_sent():
    body = START + picture() + b"\r\n--x--\r\n"
    whole = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    claimed = POST + b"Content-Length: 200000\r\n\r\n" + START
    with serving(seconds=1.0, upload=200_000, held=300_000) as port:
        slow = [connect(port, claimed) for _ in range(6)]
        with connect(port, whole) as honest:
            status, content = answer(honest)
            assert status == 200 and b"script" not in content
        for connection in slow[:2]:  # these two leave less than 10,000 bytes of room
            connection.sendall(bytes(145_000))
        time.sleep(0.1)
        with connect(port, whole) as honest:
            status, content = answer(honest)
            assert status == 503 and b"uploads of 300,000 bytes" in content
        assert answer(slow[0])[0] == 503 and answer(slow[5])[0] == 503  # their time is over
        with connect(port, whole) as honest:
            assert answer(honest)[0] == 200
        for connection in slow:
            connection.close()
