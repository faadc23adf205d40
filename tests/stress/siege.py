"""Attack the real server on loopback: does it keep every promise, and does its memory stay flat?

python -m tests.stress.siege --seed=0 [--oversized=10000] [--malformed=3000]
    [--server=NAME] [--schemathesis=PROGRAM]

Starts `mim_jax.deploy.server.serving.serve`, or another server of `tests.stress.siege_servers`, with a small
detector in a new process, for a folder with links that lead out of it, and sends malformed and hostile
requests: `tests.stress.siege_requests` and `siege_forms` define them and the statuses promised for them. Then
clients that are slow or never read keep connections open, all at once, while an honest client asks. Every
answer must have the headers of the app and no banner, must contain nothing from outside the folder and no
file name, and the log must stay empty. The program ends with an error if a promise was broken.

schemathesis is not a dependency, because it brings twenty packages and a pytest plugin: install it anywhere
(`pipx install schemathesis`) and name its program.
"""

import argparse
import contextlib
import http.client
import importlib.resources
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path

import numpy as np

from mim_jax.deploy.server.app import HEADERS
from tests.stress import siege_forms
from tests.stress import siege_requests as attacks
from tests.stress.siege_requests import Request, post
from tests.stress.siege_servers import SERVERS

# MB that the allocator may keep after uploads of 16 MiB each by eight clients at a time.
KEPT = 8 * 16
SLACK = 6.0  # seconds by which a promised end may be late on a busy machine


class Siege:
    """Requests sent, answers received, and promises broken."""

    def __init__(self, port: int):
        self.port = port
        self.lock = threading.Lock()
        self.statuses: dict[str, Counter[str]] = defaultdict(Counter)
        self.slowest: dict[str, float] = defaultdict(float)
        self.broken: list[str] = []
        self.faults: dict[str, Counter[str]] = defaultdict(Counter)

    def connect(self, **options: int) -> socket.socket:
        """Open a connection; `receive` is the size of its receive buffer in bytes."""
        connection = socket.socket()
        if "receive" in options:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, options["receive"])
        connection.settimeout(90)
        connection.connect(("127.0.0.1", self.port))
        return connection

    def ask(self, request: Request) -> bytes:
        """Send one request, check its answer, and return its content."""
        began, status, content = time.perf_counter(), "none", b""
        with self.connect() as connection:
            try:
                for part in request.parts:
                    connection.sendall(part)
            except OSError:  # it has answered and closed before all was sent
                pass
            try:
                reply = http.client.HTTPResponse(connection, method=request.method)
                reply.begin()
                content, status = reply.read(), str(reply.status)
                self.inspect(request, reply, content)
            except (OSError, http.client.HTTPException) as error:
                status = f"none ({type(error).__name__})"
        self.note(request.kind, status, time.perf_counter() - began)
        if status.split()[0] not in request.allowed:
            self.fault(request, f"status {status}, promised are {', '.join(request.allowed)}")
        return content

    def inspect(self, request: Request, reply: http.client.HTTPResponse, content: bytes) -> None:
        """Check the headers and content that every answer must have or must not have."""
        missing = [name for name, value in HEADERS.items() if reply.getheader(name) != value]
        if missing or "no-" not in reply.getheader("cache-control", ""):
            self.fault(request, f"{reply.status} without {', '.join(missing) or 'cache-control'}")
        if reply.getheader("server"):
            self.fault(request, f"the banner {reply.getheader('server')}")
        told = content + str(reply.headers).encode()
        if attacks.SECRET in told or b"Traceback" in told or any(word in told for word in request.untold):
            self.fault(request, f"the answer contains what it must not: {content[:200]!r}")
        if reply.status >= 400 and b"<" in content and reply.getheader("content-type") == "text/html":
            self.fault(request, "an error answered with a page")

    def note(self, kind: str, status: str, seconds: float) -> None:
        with self.lock:
            self.statuses[kind][status] += 1
            self.slowest[kind] = max(self.slowest[kind], seconds)

    def fault(self, request: Request, sentence: str) -> None:
        with self.lock:
            self.broken.append(f"{request.kind}: {sentence}: {b''.join(request.parts)[:160]!r}")
            self.faults[request.kind][sentence[:80]] += 1

    # ---- slow clients; each returns once its connection was closed, or records a fault

    def hold(self, kind: str, first: bytes, drip: bytes, most: float, pause: float = 1.0) -> None:
        """Send a few bytes now and then until the server closes the connection, within `most` seconds."""
        began = time.perf_counter()
        with self.connect() as connection:
            connection.setblocking(True)
            status = ""
            try:
                connection.sendall(first)
                while time.perf_counter() - began < most + SLACK:
                    connection.settimeout(pause)
                    try:
                        data = connection.recv(65536)
                        if not data:
                            status = status or "closed"
                            break
                        status = status or data[9:12].decode()
                    except TimeoutError:
                        connection.sendall(drip)
                else:
                    request = Request(kind, (first,))
                    self.fault(request, f"still open after {most + SLACK:g} s")
            except OSError:
                status = status or "closed"
        self.note(kind, status or "still open", time.perf_counter() - began)

    def never_read(self, path: str, most: float) -> None:
        """Ask for a large file and read nothing for `most` seconds; the file must then be cut off."""
        began, got = time.perf_counter(), 0
        request = Request(
            "client that never reads", (f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),)
        )
        with self.connect(receive=4096) as connection:
            connection.sendall(request.parts[0])
            time.sleep(most + SLACK)
            try:
                while data := connection.recv(2**20):
                    got += len(data)
            except OSError:
                pass
        if got >= attacks.LARGE:
            self.fault(request, "was kept open, and the file read to its end")
        self.note(request.kind, "closed", time.perf_counter() - began)

    def read_slowly(self, path: str, most: float) -> None:
        """Read a large file evenly over `most` seconds, as on a slow line; it must arrive whole."""
        began, got, step = time.perf_counter(), 0, attacks.LARGE // 100
        request = attacks.get(path, "Connection: close", kind="slow download")
        with self.connect(receive=65536) as connection:
            connection.sendall(request.parts[0])
            with contextlib.suppress(OSError):
                while data := connection.recv(step):
                    got += len(data)
                    time.sleep(max(0, began + most * got / attacks.LARGE - time.perf_counter()))
        if got < attacks.LARGE:
            self.fault(request, "cut off before its end")
        status = "whole" if got >= attacks.LARGE else "cut off"
        self.note(request.kind, status, time.perf_counter() - began)


def besiege_slowly(siege: Siege) -> None:
    """Run all slow clients at once; an honest client must be answered within 5 s every time."""
    head = b"".join(post(attacks.start_of_form(), length=1000).parts)
    endless = attacks.get("/healthz", f"Content-Length: {10**12}").parts[0]
    kinds: list[tuple[int, Callable[[], None]]] = [
        (700, lambda: siege.hold("slow headers", b"GET / HTTP/1.1\r\nx: ", b"x", 10)),
        (100, lambda: siege.hold("nothing sent", b"", b"", 10)),
        (100, lambda: siege.hold("slow body", head, b"x", 30)),
        (50, lambda: siege.hold("left open after an answer", attacks.get("/healthz").parts[0], b"", 5)),
        (50, lambda: siege.hold("body after the answer", endless, b"x" * 99, 10)),
        (20, lambda: siege.never_read("/large.bin", 60)),
        (4, lambda: siege.read_slowly("/large.bin", 40)),
    ]
    threads = [threading.Thread(target=work) for count, work in kinds for _ in range(count)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        began = time.perf_counter()
        siege.ask(attacks.honest("honest client meanwhile"))
        if time.perf_counter() - began > 5:
            siege.fault(attacks.honest("honest client meanwhile"), "waited for more than 5 s")
        time.sleep(0.5)


def state(process: int) -> tuple[float, int]:
    """Memory of a process in MB (VmRSS) and its number of open files."""
    status = Path(f"/proc/{process}/status").read_text()
    found = re.findall(r"VmRSS:\s+(\d+)", status)
    return int(found[0]) / 1024, len(os.listdir(f"/proc/{process}/fd"))


def make_folder(root: Path) -> Path:
    """Make a folder with the app's page, a large file, and links to files that must not be served."""
    folder = root / "app"
    folder.mkdir()
    for item in importlib.resources.files("mim_jax.deploy.app").joinpath("static").iterdir():
        (folder / item.name).write_bytes(item.read_bytes())
    (folder / "large.bin").write_bytes(bytes(attacks.LARGE))
    (root / "secret.txt").write_bytes(attacks.SECRET)
    (root / "app-beside").mkdir()
    (root / "app-beside" / "secret.txt").write_bytes(attacks.SECRET)
    (folder / "link.txt").symlink_to(root / "secret.txt")
    (folder / "outside").symlink_to(root)
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    return folder


def run_schemathesis(program: str, port: int) -> str:
    """Last lines of its output; raise SystemExit if it finds something."""
    url = f"http://127.0.0.1:{port}/openapi.json"
    found = shutil.which(program)
    if found is None:
        raise SystemExit(f"siege: there is no program {program}: install it, or leave out --schemathesis")
    command = [str(Path(found).absolute()), "run", url, "--seed=0", "-n", "200"]
    with tempfile.TemporaryDirectory() as folder:  # for its reports
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"siege: schemathesis found:\n{done.stdout[-6000:]}")
    return "\n".join(done.stdout.strip().splitlines()[-12:])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--oversized", type=int, default=10_000)
    parser.add_argument("--malformed", type=int, default=3_000)
    parser.add_argument("--server", choices=SERVERS, default="ours")
    parser.add_argument("--schemathesis", help="program to run; without it this part is left out")
    options = parser.parse_args(arguments)
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as name, open(Path(name, "log"), "w+") as log:
        folder = str(make_folder(Path(name)))
        command = [sys.executable, "-m", "tests.stress.siege_servers", options.server, folder]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert server.stdout is not None
            found = re.search(r"http://.*:(\d+)/", server.stdout.readline())
            if not found:
                raise SystemExit(f"siege: the server did not start: {Path(log.name).read_text()[-2000:]}")
            siege = Siege(int(found[1]))
            summary = fight(siege, server.pid, rng, options)
            log.seek(0)
            said = log.read()
            if said:
                siege.broken.append(f"the log is not empty: {said[:2000]}")
        finally:
            server.terminate()
            server.wait()
    print(json.dumps(summary, indent=1))
    if siege.broken:
        kinds = Counter(each.split(":")[0] for each in siege.broken)
        raise SystemExit("\n".join([f"siege: broken promises: {dict(kinds)}", *siege.broken[:20]]))
    print("siege: every promise was kept")


def fight(
    siege: Siege, process: int, rng: np.random.Generator, options: argparse.Namespace
) -> dict[str, object]:
    """Send everything once, from eight threads; return the figures."""
    first = siege.ask(attacks.honest("honest client"))
    kinds: Iterator[Request] = chain(
        attacks.traversals(),
        attacks.unlisted(rng),
        attacks.wrong_methods(),
        attacks.no_http(),
        attacks.files(),
        attacks.script_names(),
        islice(siege_forms.malformed(rng), options.malformed),
    )
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(siege.ask, kinds):
            pass
        states = [state(process)]
        uploads = siege_forms.oversized()
        for _ in range(4):
            for _ in pool.map(siege.ask, islice(uploads, options.oversized // 4)):
                pass
            states.append(state(process))
    besiege_slowly(siege)
    told = run_schemathesis(options.schemathesis, siege.port) if options.schemathesis else "left out"
    last = siege.ask(attacks.honest("honest client"))
    if last != first:
        siege.broken.append("honest client: another answer than before the siege")
    time.sleep(6)  # until keep-alive connections have ended
    states.append(state(process))
    memory, files = ([each[place] for each in states] for place in (0, 1))
    if max(memory) > memory[0] + KEPT:
        siege.broken.append(f"memory: {', '.join(f'{each:.0f}' for each in memory)} MB")
    if files[-1] > files[0] + 4:
        siege.broken.append(f"files: {files[0]} were open before, {files[-1]} after")
    return {
        "requests": {kind: sum(found.values()) for kind, found in siege.statuses.items()},
        "statuses": {kind: dict(found.most_common()) for kind, found in siege.statuses.items()},
        "slowest_seconds": {kind: round(value, 2) for kind, value in siege.slowest.items()},
        "faults": {kind: dict(found.most_common()) for kind, found in siege.faults.items()},
        "memory_mb": {
            "before": round(memory[0]),
            "after_each_quarter_of_the_oversized": [round(each) for each in memory[1:5]],
            "at_the_end": round(memory[5]),
        },
        "open_files": {"before": files[0], "at_the_end": files[-1]},
        "schemathesis": told,
    }


if __name__ == "__main__":
    main()
