"""The server of `mim_jax.deploy.server.app` on an address, with a detector behind it."""

import functools
import logging
import os
import socket
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, Protocol

import jax
import numpy as np
import uvicorn

from mim_jax.data.gate import Gate
from mim_jax.deploy.server.app import LOOPBACK, create_app
from mim_jax.deploy.server.connection import Connection


class Scorer(Protocol):
    """What of a `Detector` is needed."""

    @property
    def image_size(self) -> int: ...

    @property
    def mask_size(self) -> int: ...

    def assess(self, images: Any, *, alpha: float) -> Sequence[Any]: ...


def serve(
    scorer: Scorer,
    *,
    alpha: float,
    gate: Gate,
    folder: str | os.PathLike[str] | None,
    host: str,
    port: int,
    tell: Callable[[str], None],
) -> None:
    """Answers until it is interrupted.

    Args:
      scorer: a `Detector`.
      alpha: the share of mpox that may be missed, as `Detector.assess`.
      gate: the checks that an image must pass.
      folder: of the app; None = only the scorer.
      host: address to answer at; any but one of this machine itself brings a warning.
      port: 0 = any that is free.
      tell: called with sentences for people: a warning, and where the server is.

    Raises:
      ValueError: the folder is no app, or the address cannot be had.
    """
    local = host in LOOPBACK
    assess = functools.partial(scorer.assess, alpha=alpha)
    app = create_app(
        assess,
        image_size=scorer.image_size,
        min_side=scorer.mask_size,
        gate=gate,
        folder=folder,
        versions={"mim_jax": version("mim-jax"), "jax": jax.__version__},
        hosts=LOOPBACK if local else None,
    )
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Before the network is compiled: an address that cannot be had should be told at once.
        try:
            listener.bind((host, port))
            listener.listen(128)
        except OSError as error:
            raise ValueError(
                f"no server can listen at {host}, port {port} ({error.strerror}): choose another "
                "--port or --host"
            ) from None
        if not local:
            tell(
                f"warning: whoever reaches {host} can use this server, which knows no passwords and no "
                "encryption: put a proxy in front of it that does"
            )
        assess(np.zeros((1, scorer.image_size, scorer.image_size, 3), np.uint8))
        name = f"[{host}]" if ":" in host else host
        tell(f"serving: http://{name}:{listener.getsockname()[1]}/ (Ctrl+C ends it)")
        # No access log: it would keep who asked, and when. No warnings: there is one for each request that is
        # no HTTP and for each broken form, so anybody could fill a disk with them.
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
