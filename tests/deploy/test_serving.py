"""The server's address: announced, warned about, refused if unavailable; and its end when interrupted."""

import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

pytest.importorskip("fastapi")

from mim_jax.data.quality import Gate
from mim_jax.deploy.server import serving
from tests.launching import LIMIT

PROGRAM = """
import sys
from mim_jax.deploy.server import serving
from mim_jax.data.quality import Gate

class Scorer:
    image_size, min_side = 32, 16
    def assess(self, images, *, alpha):
        print("scored", len(images), alpha, flush=True)
        return [None] * len(images)

tell = lambda sentence: print(sentence, file=sys.stderr, flush=True)
serving.serve(Scorer(), alpha=0.2, gate=Gate(), folder=None, host=sys.argv[1], port=0, tell=tell)
"""


class Scorer:
    image_size, min_side = 32, 16

    def assess(self, images, *, alpha):
        raise AssertionError("the unavailable address was noticed too late")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_it_says_where_it_is_and_ends_when_interrupted(host):
    command = [sys.executable, "-c", PROGRAM, host]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        said = []
        while not said or "serving: " not in said[-1]:
            said.append(server.stderr.readline())
            assert said[-1], said
        assert len(said) == (1 if host == "127.0.0.1" else 2)
        assert host == "127.0.0.1" or said[0].startswith(
            "warning: anyone who can reach 0.0.0.0 can use this server"
        )
        port = int(re.search(r":(\d+)/", said[-1])[1])
        for name, status in (("127.0.0.1", 200), ("another.example", 400 if host == "127.0.0.1" else 200)):
            request = urllib.request.Request(f"http://127.0.0.1:{port}/healthz", headers={"Host": name})
            try:
                with urllib.request.urlopen(request, timeout=LIMIT) as reply:
                    assert reply.status == status and b'"ok"' in reply.read()
            except urllib.error.HTTPError as error:
                assert error.code == status
                error.close()
        server.send_signal(signal.SIGINT)
        out, _ = server.communicate(timeout=LIMIT)
        assert out == "scored 1 0.2\n"  # compiled before it was announced
    finally:
        server.kill()
        server.communicate()


def test_an_address_that_cannot_be_had_is_told_at_once():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for host, number in (("127.0.0.1", port), ("203.0.113.1", 0)):
            with pytest.raises(ValueError, match=rf"on {host}, port {number} \(.*--port or --host"):
                serving.serve(
                    Scorer(), alpha=0.1, gate=Gate(), folder=None, host=host, port=number, tell=print
                )
