"""The server of an app under attack: does it answer only what it should, keep its memory, and stay up?

python -m benchmarks.siege --oversized=10000 --seed=0

Starts `mim_jax.app.serving` on loopback with a scorer that costs nothing and a folder that holds a page, and
links to files that must not be served. Every answer must have the status and the headers that it should have;
between attacks a good photograph must be scored, and at the end the memory (VmRSS of Linux) may not have
grown by more than 32 MiB. The first broken promise ends it.
"""

import argparse
import concurrent.futures
import http.client
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from benchmarks.server import BOUNDARY, body_of, drawn_image, memory
from mim_jax.app.server import HEADERS, Limits

SERVER = """
import sys
from dataclasses import dataclass, field
import numpy as np
from mim_jax.app import serving
from mim_jax.data.gate import Gate

@dataclass
class Assessment:
    score: float
    similarities: dict = field(default_factory=dict)
    p_value: float = 0.5
    decision: str = "mpox_like"
    reasons: tuple = ()

class Scorer:
    image_size, mask_size = 64, 32
    def assess(self, images, *, alpha):
        return [Assessment(float(np.mean(image))) for image in images]

tell = lambda sentence: print(sentence, flush=True)
serving.serve(Scorer(), alpha=0.1, gate=Gate(), folder=sys.argv[1], host="127.0.0.1", port=0, tell=tell)
"""
SECRET = "what nobody may see"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
GROWTH = 32  # MiB that the memory may grow by: allocators keep some of what they had

Answer = tuple[int, dict[str, str], bytes]
Ask = Callable[..., Answer]


def malformed() -> Iterable[tuple[str, bytes]]:
    """Content types and bodies that are no form with exactly one file called image."""
    good = body_of(b"a")
    part = b'Content-Disposition: form-data; name="image"; filename="a"\r\n'
    line = f"--{BOUNDARY}\r\n".encode()
    for kind in (
        "",
        "text/plain",
        "application/json",
        "application/x-www-form-urlencoded",
        "multipart/mixed",
    ):
        yield kind, good
    for kind in ("multipart/form-data", FORM + "x", "multipart/form-data; boundary=", FORM + "\u00e9" * 50):
        yield kind, good
    yield FORM, b""
    for cut in range(1, len(good), 7):  # everywhere: in the boundary, a header, the end
        yield FORM, good[:cut]
    yield FORM, good.replace(b'name="image"', b'name="other"')
    yield FORM, good.replace(b'name="image"; ', b"")
    for charset in ("idna", "punycode", "utf-7", "none"):
        yield f"{FORM}; charset={charset}", good.replace(b'"image"', b'"\xff.."')
    yield FORM, good.replace(b'; filename="photo"', b"")
    yield FORM, good.replace(b"\r\n\r\n", b"\r\n" + b"X: y\r\n" * 10_000 + b"\r\n")
    yield FORM, good.replace(b"\r\n\r\n", b"\r\nX: " + b"y" * 100_000 + b"\r\n\r\n")
    yield FORM, (line + part + b"\r\na\r\n") * 3 + f"--{BOUNDARY}--\r\n".encode()
    yield FORM, (line + part.replace(b"; filename", b"; other") + b"\r\n" + b"a" * 5000 + b"\r\n") * 50
    yield FORM, line * 10_000
    yield FORM, line + b"\xff\xfe" * 500 + b"\r\n\r\n"
    yield FORM, b"\0" * 1000


def paths(secret: Path) -> Iterable[str]:
    """Ways out of the served folder, and routes that are not there."""
    name = secret.name
    for step in ("..", "%2e%2e", ".%2e", "%252e%252e", "..;", "..%00", "...", "..%c0%af", "..\\", "..%5c"):
        for start in ("/", "//", "/static/", "/./", "/link/", "/index.html/", "/%2f", "/C:/"):
            yield f"{start}{step}/{name}"
            yield f"{start}{step}/{step}/{step}{secret}"
    yield from (
        str(secret),
        f"/{secret}",
        f"/%2e%2e/{name}",
        f"/link/{name}",
        "/linked.txt",
        f"file://{secret}",
    )
    yield from (
        "/docs/",
        "/redoc",
        "/admin",
        "/.git/config",
        "/score/../healthz/x",
        "/healthz/",
        "/\0",
    )
    yield "/" + "a" * 30_000


def check(condition: object, promise: str, *found: object) -> None:
    """SystemExit where a promise is broken."""
    if not condition:
        raise SystemExit(f"siege: {promise}: {' '.join(map(str, found))[:2000]}")


def asker(port: int) -> Ask:
    """A function that sends one request on a connection of its own."""

    def ask(method: str, path: str, body: bytes = b"", kind: str = "", **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            # By hand: what is to be sent is not always what HTTP allows.
            lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close"]
            lines += [f"Content-Type: {kind}"] if kind else []
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            if "Content-Length" not in given:
                given["Content-Length"] = str(len(body))
            lines += [f"{name}: {value}" for name, value in given.items()]
            connection.connect()
            connection.sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
            reply = http.client.HTTPResponse(connection.sock, method=method)
            reply.begin()
            return reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read()
        except (ConnectionError, http.client.HTTPException):
            return 0, {}, b""  # closed without an answer, as uvicorn may do with what is not HTTP
        finally:
            connection.close()

    return ask


def refused(answer: Answer, allowed: set[int], what: object) -> int:
    """The status of a refusal that is as it should be."""
    status, headers, body = answer
    check(status in allowed, "a wrong status", status, what, body[:300])
    if status:
        check(SECRET.encode() not in body, "a secret has been served", what)
    if status:
        missing = [name for name, value in HEADERS.items() if headers.get(name) != value]
        check(not missing, "headers are missing", missing, what)
        check("server" not in headers, "the server tells its name", what)
    return status


def attack(port: int, secret: Path, *, oversized: int, rng: np.random.Generator) -> dict[str, Counter[int]]:
    """Everything, one after the other: statuses by the kind of attack; 0 = closed without an answer."""
    ask, seen = asker(port), {}
    photograph = body_of(drawn_image())

    def good() -> None:
        status, _, body = ask("POST", "/score", photograph, FORM)
        check(status == 200 and json.loads(body)["score"], "a good photograph is not scored", status, body)

    good()
    seen["malformed forms"] = Counter(
        refused(ask("POST", "/score", body, kind), {400, 413, 415, 422}, (kind, body[:200]))
        for kind, body in malformed()
    )
    good()
    seen["paths"] = Counter(
        refused(ask("GET", path), {0, 400, 404, 405, 414}, path) for path in paths(secret)
    )
    wrong = [
        *((method, path) for method in ("PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "FOO") for path in
          ("/", "/score", "/healthz", "/docs", "/openapi.json")),
        *(("POST", path) for path in ("/", "/healthz", "/docs", "/openapi.json")),
        *((method, "/score") for method in ("GET", "HEAD")),
    ]  # fmt: skip
    seen["methods"] = Counter(refused(ask(*one), {404, 405}, one) for one in wrong)
    names = (
        '"><script>alert(1)</script>',
        "../../etc/passwd",
        "a\\r\\nX-Evil: 1",
        "\u202egnp.exe",
        "a" * 5000,
    )
    for name in names:
        form = photograph.replace(b'filename="photo"', f'filename="{name}"'.encode())
        status, headers, body = ask("POST", "/score", form, FORM)
        told = name.encode() in body or "x-evil" in headers
        check(not told and headers.get("content-type", "json").endswith("json"), "a name is told", name, body)
        seen.setdefault("names of files", Counter())[status] += 1
    good()
    limit = str(17 * 2**20)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = pool.map(
            lambda _: refused(ask("POST", "/score", b"--", FORM, Content_Length=limit), {413}, "oversized"),
            range(oversized),
        )
        seen["oversized, announced"] = Counter(answers)
        seen["oversized, in chunks"] = Counter(pool.map(lambda _: chunked(port), range(100)))
    good()
    seen["random bytes"] = Counter()
    for _ in range(1000):
        start = rng.choice([b"", b"GET / HTTP/1.1\r\n", b"POST /score HTTP/1.1\r\nContent-Length: 5\r\n"])
        with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
            line.sendall(bytes(start) + rng.bytes(int(rng.integers(1, 300))) + b"\r\n\r\n")
            line.shutdown(socket.SHUT_WR)
            try:
                first = line.recv(100)
            except ConnectionError:
                first = b""
        found = re.match(rb"HTTP/1.1 (\d+)", first)
        check(not first or found, "an answer that is no HTTP", first)
        seen["random bytes"][int(found[1]) if found else 0] += 1
    good()
    seen["slow clients"] = slow(port, good)
    good()
    return seen


def chunked(port: int) -> int:
    """The status of an upload that does not say how long it is, and goes on until it is refused."""
    head = f"POST /score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {FORM}\r\n"
    head += "Transfer-Encoding: chunked\r\n\r\n"
    block = b"100000\r\n" + bytes(2**20) + b"\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as line:
        line.sendall(head.encode() + b"%x\r\n%s\r\n" % (len(body_of(b"")[:90]), body_of(b"")[:90]))
        try:
            for _ in range(40):
                line.sendall(block)
        except ConnectionError:
            pass
        else:
            check(False, "40 MiB have been taken")
        try:
            first = line.recv(100)
        except ConnectionError:
            return 0  # it was closed with much unread, which may take the answer with it
    found = re.match(rb"HTTP/1.1 (\d+)", first)
    check(found and found[1] in (b"413", b"400"), "an endless upload", first)
    return int(found[1]) if found else 0


def slow(port: int, good: Callable[[], None]) -> Counter[int]:
    """Clients that begin and do not go on: others are served, and each is sent away in time."""
    head = f"POST /score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {FORM}\r\n"
    begun = (
        b"",
        b"POST /sc",
        head.encode(),
        head.encode() + b"Content-Length: 500\r\n\r\n",
        head.encode() + b"Content-Length: 500\r\n\r\n--" + BOUNDARY.encode(),
        b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /hea",
    )
    began = time.perf_counter()
    lines = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(40 * len(begun))]
    try:
        for number, line in enumerate(lines):
            line.sendall(begun[number % len(begun)])
        good()
        check(time.perf_counter() - began < 10, "slow clients keep others waiting")
        left = Counter[int]()
        for line in lines:
            said = b""
            while block := line.recv(4096):  # until the server closes it
                said += block
            statuses = re.findall(rb"HTTP/1.1 (\d+)", said)
            left[int(statuses[-1]) if statuses else 0] += 1
        check(time.perf_counter() - began < Limits().seconds + 15, "slow clients are kept")
        return left
    finally:
        for line in lines:
            line.close()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--oversized", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        app, secret = Path(folder, "app"), Path(folder, "secret.txt")
        app.mkdir()
        (app / "index.html").write_text("<!doctype html><title>a page</title>")
        secret.write_text(SECRET)
        (app / "linked.txt").symlink_to(secret)
        (app / "link").symlink_to(folder)
        command = [sys.executable, "-c", SERVER, str(app)]
        log = Path(folder, "log")  # a file: a pipe that nobody empties would stop the server
        with log.open("w") as stderr:
            server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
        assert server.stdout is not None
        try:
            found = re.search(r":(\d+)/", server.stdout.readline())
            assert found, "it did not start"
            rng, began = np.random.default_rng(options.seed), time.perf_counter()
            attack(int(found[1]), secret, oversized=100, rng=rng)  # warm
            before = memory(server.pid)["VmRSS"]
            seen = attack(int(found[1]), secret, oversized=options.oversized, rng=rng)
            after = memory(server.pid)
            check(server.poll() is None, "the server has ended")
        finally:
            server.terminate()
            server.communicate()
        said = log.read_text()
    check("Traceback" not in said, "the server has failed on a request", said)
    print(f"siege: {sum(map(Counter.total, seen.values())):,} requests, {time.perf_counter() - began:.0f} s")
    for kind, statuses in seen.items():
        print(f"  {kind}: {', '.join(f'{count:,} x {status}' for status, count in sorted(statuses.items()))}")
    print(f"  MB before {before}, after {after['VmRSS']}, at most {after['VmHWM']}")
    check(after["VmRSS"] - before <= GROWTH, "memory has grown", before, after)


if __name__ == "__main__":
    main()
