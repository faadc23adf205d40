"""Servers that `tests.stress.siege` can attack: ours, and maintained ones with the limits that they have.

python -m tests.stress.siege_servers NAME FOLDER

Each serves the same app with the same small detector, prints its address and runs until terminated. The
limits are set as close to ours as their settings allow; hypercorn and granian must be installed separately.
"""

import argparse
import asyncio
import functools
import logging
import socket
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import uvicorn

from mim_jax.data.quality import Gate
from mim_jax.deploy.server import serving
from mim_jax.deploy.server.app import create_app
from mim_jax.detector import Detector
from mim_jax.inpaint.networks import make_generator
from mim_jax.measure.similarity import Measure

CONNECTIONS, KEEP_ALIVE, HEADERS_SECONDS, HEADERS_BYTES = 512, 5, 10, 64 * 1024


def make_detector() -> Detector:
    """A detector with initial weights: fast, and always with the same answer."""
    options = {"width": 8, "bottleneck": "pointwise", "bottleneck_channels": 40}
    network = make_generator("context_encoder", options, dtype=np.float32)
    variables = network.init(jax.random.key(0), np.zeros((1, 64, 64, 3), np.float32), train=False)
    return Detector(network, [variables], 64, 32, 0.7, "invented", Measure())


def run_ours(folder: str) -> None:
    """The server of `--mode=serve`."""
    say = functools.partial(print, flush=True)
    where: dict[str, Any] = {"folder": folder, "host": "127.0.0.1", "port": 0}
    serving.serve(make_detector(), alpha=0.1, gate=Gate(), tell=say, **where)


def make_app(folder: str) -> Any:
    """The app as `serving.serve` makes it, with its network compiled."""
    detector = make_detector()
    assess = functools.partial(detector.assess, alpha=0.1)
    assess(np.zeros((1, 64, 64, 3), np.uint8))
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    return create_app(assess, image_size=64, min_side=32, folder=folder)


def listen() -> socket.socket:
    """Open a socket at a free port and print its address."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    tell(listener.getsockname()[1])
    return listener


def tell(port: int) -> None:
    """Print the line that the siege waits for."""
    print(f"serving: http://127.0.0.1:{port}/", flush=True)


def run_uvicorn(folder: str) -> None:
    """uvicorn with its own protocol and limits."""
    app = make_app(folder)
    config = uvicorn.Config(
        app,
        ws="none",
        http="h11",
        log_level="error",
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE,
        h11_max_incomplete_event_size=HEADERS_BYTES,
    )
    uvicorn.Server(config).run(sockets=[listen()])


def run_hypercorn(folder: str, *, read_timeout: int | None = HEADERS_SECONDS) -> None:
    """Hypercorn on asyncio, HTTP/1 by h11; its `read_timeout` also ends clients waiting for an answer."""
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    app = make_app(folder)
    listener = listen()
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.include_server_header = False
    config.errorlog = None
    config.keep_alive_timeout = KEEP_ALIVE
    config.read_timeout = read_timeout
    config.h11_max_incomplete_size = HEADERS_BYTES
    asyncio.run(serve(app, config))


def run_granian(folder: str) -> None:
    """Granian inside this process, on asyncio, HTTP/1 by hyper."""
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings
    from granian.server.embed import Server

    with socket.create_server(("127.0.0.1", 0)) as free:  # it opens the port itself
        port = free.getsockname()[1]
    headers = HTTP1Settings(header_read_timeout=1000 * HEADERS_SECONDS, max_buffer_size=HEADERS_BYTES)
    server = Server(
        make_app(folder),
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        backlog=128,
        backpressure=CONNECTIONS,
        http1_settings=headers,
        log_enabled=False,
    )

    async def run() -> None:
        serving = asyncio.create_task(server.serve())
        while True:
            await asyncio.sleep(0.1)
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
        tell(port)
        await serving

    asyncio.run(run())


SERVERS: dict[str, Callable[[str], None]] = {
    "ours": run_ours,
    "uvicorn": run_uvicorn,
    "hypercorn": run_hypercorn,
    "hypercorn_without_read_timeout": functools.partial(run_hypercorn, read_timeout=None),
    "granian": run_granian,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=SERVERS)
    parser.add_argument("folder")
    options = parser.parse_args()
    SERVERS[options.name](options.folder)
