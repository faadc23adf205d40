"""The app's folder and a scorer over HTTP: `POST /score` takes one image and returns its assessment.

    curl -F image=@photo.jpg http://127.0.0.1:8000/score

No part of an upload is written to disk or logged. At most `Limits.upload` bytes of an upload are read, and
every request ends after `Limits.seconds`. At most `Limits.held` bytes of uploads are in memory, and at most
`Limits.decoders` images are decoded at a time, so memory is bounded for any number of clients. A client
uses only as much memory as it has sent, so slow clients keep nobody waiting.
"""

import asyncio
import dataclasses
import functools
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse
from jinja2 import Environment, FileSystemLoader
from pydantic import BaseModel
from python_multipart.multipart import parse_options_header
from starlette.datastructures import MutableHeaders, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mim_jax.data.images import MIN_SIDE, UnusableImage, decode_image
from mim_jax.data.quality import Gate
from mim_jax.decide.decision import unusable
from mim_jax.deploy.server.scoring_queue import Busy, ScoringQueue

LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")

# A page from here may run its own files, compile WebAssembly and show images that it created. The last three
# headers enable WebAssembly threads, which browsers allow only in cross-origin isolated pages.
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "cross-origin-resource-policy": "same-origin",
}

# Not every system knows these types, and with `nosniff` browsers run no module of another type.
_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".wasm": "application/wasm",
    ".onnx": "application/octet-stream",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
}

_UPLOAD = {
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["image"],
                "properties": {"image": {"type": "string", "format": "binary"}},
                "additionalProperties": False,
            }
        }
    },
    "required": True,
}


@dataclass(frozen=True)
class Limits:
    """Limits on one request, and on all of them at once."""

    upload: int = 16 * 2**20  # bytes of a request
    seconds: float = 30.0  # from its first byte to the answer
    held: int = 256 * 2**20  # bytes of all uploads in memory; more are refused
    decoders: int = 2  # images decoded at a time
    waiting: int = 64  # decoded images that wait for the scorer


class Answer(BaseModel):
    """The assessment of one image; `unusable` if it cannot be decoded or fails the input gate."""

    score: float | None
    similarities: dict[str, float]
    p_value: float | None
    decision: str
    reasons: list[str]
    versions: dict[str, str]


class Failure(BaseModel):
    """Why there is no assessment, in one sentence."""

    detail: str


_FAILURES: dict[int | str, dict[str, Any]] = {
    status: {"model": Failure, "description": words}
    for status, words in {
        400: "Malformed request: an incomplete form, or a host name that is not allowed.",
        413: "The upload is too large.",
        415: "The request is not multipart/form-data.",
        422: "The form must have exactly one field, a file named `image`.",
        500: "The scorer failed on this image.",
        503: "Too slow or too busy; try again later.",
    }.items()
}


def create_app(
    assess: Callable[[Sequence[np.ndarray]], Sequence[Any]],
    *,
    image_size: int,
    min_side: int = MIN_SIDE,
    gate: Gate | None = None,
    folder: str | os.PathLike[str] | None = None,
    versions: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    hosts: Sequence[str] | None = LOOPBACK,
) -> FastAPI:
    """Create the server application, for uvicorn or a test to run.

    Args:
      assess: uint8 images `[image_size, image_size, 3]` -> as many `mim_jax.Assessment`, such as
        `NoveltyDetector.assess`; called from one thread, with 1 to 8 images.
      image_size: side, in pixels, that images are decoded to.
      min_side: least length of an image's shorter side, in pixels.
      gate: checks that an image must pass; None = all.
      folder: folder served at /; it needs an index.html. None = only the scorer.
      versions: versions of the scorer, included in every answer.
      limits: limits on requests; None = the defaults.
      hosts: allowed host names, without port; others are refused, because another site could point its own
        name at 127.0.0.1 (DNS rebinding). None = any.

    Raises:
      ValueError: the folder has no index.html.
    """
    limits = limits or Limits()
    versions_shown = dict(versions or {})
    if folder is not None and not Path(folder, "index.html").is_file():
        raise ValueError(
            f"{folder} has no index.html: give a folder written by --mode=export_app, or none to serve only "
            "the scorer"
        )
    decode = functools.partial(decode_image, size=image_size, gate=gate or Gate(), min_side=min_side)
    memory = _UploadMemory(limits.held)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.scorer = ScoringQueue(assess, waiting=limits.waiting)
        app.state.decoders = ThreadPoolExecutor(limits.decoders, thread_name_prefix="decoding")
        yield
        app.state.decoders.shutdown(cancel_futures=True)
        await asyncio.to_thread(app.state.scorer.close)

    # FastAPI's own documentation pages load their scripts from other servers.
    app = FastAPI(title="mim_jax", docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=lifespan)
    if hosts is not None:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    app.add_middleware(_Headers)  # the last one added is the outermost
    app.add_exception_handler(Exception, _say_failed)  # except that this handler runs outside it

    async def answer(request: Request) -> Answer:
        with memory.share() as take:
            data = await _read_image(request, limits.upload, take)
            loop = asyncio.get_running_loop()
            try:
                image = await loop.run_in_executor(app.state.decoders, decode, data)
            except UnusableImage as error:
                return Answer(**dataclasses.asdict(unusable(error.reason)), versions=versions_shown)
        found = await asyncio.wrap_future(app.state.scorer.submit(image))
        return Answer(**dataclasses.asdict(found), versions=versions_shown)

    @app.post("/score", responses=_FAILURES, openapi_extra={"requestBody": _UPLOAD})
    async def score(request: Request) -> Answer:
        """Assess one image, the file `image` of a multipart form: JPEG, PNG, WEBP, BMP or TIFF."""
        try:
            async with asyncio.timeout(limits.seconds):
                return await answer(request)
        except TimeoutError:
            raise _failure(503, f"no answer within {limits.seconds:g} s; try again later") from None
        except Busy:
            raise _failure(503, f"{limits.waiting} images are waiting; try again later") from None
        except ClientDisconnect:
            raise _failure(400, "malformed request: the upload was cut off") from None
        except HTTPException:
            raise
        # Catch everything: a failure on one image is reported to its sender, without a traceback.
        except Exception as error:
            raise _failure(500, f"the scorer failed on this image ({type(error).__name__})") from error

    @app.get("/healthz")
    async def health() -> dict[str, Any]:
        """Report that the server runs, and its versions."""
        return {"status": "ok", "image_size": image_size, "versions": versions_shown}

    @app.get("/docs", include_in_schema=False)
    async def documentation() -> HTMLResponse:
        pages = Environment(loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True)
        page = pages.get_template("docs.html.j2")
        return HTMLResponse(page.render(paths=app.openapi()["paths"], failures=_FAILURES, limits=limits))

    if folder is not None:
        # Not mounted: a mount at / would answer every wrong method at /score with 404.
        app.router.default = _Files(directory=folder, html=True)
    else:
        app.add_api_route("/", documentation, include_in_schema=False)
    return app


class _UploadMemory:
    """Memory budget shared by all uploads."""

    def __init__(self, size: int):
        self.size = self.free = size

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that reserves bytes; free them at the end."""
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            if size > self.free:
                raise _failure(503, f"uploads of {self.size:,} bytes are being read; try again later")
            self.free -= size
            taken += size

        try:
            yield take
        finally:
            self.free += taken


async def _read_image(request: Request, most: int, take: Callable[[int], None]) -> bytes:
    """Read the only file of a form; `take` is called with the size of each chunk."""
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "multipart/form-data":
        raise _failure(415, f"multipart/form-data with a file named image is needed, got {kind or 'nothing'}")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > most:
        raise _failure(413, f"an upload of {length} bytes; at most {most:,} are allowed")

    async def limited() -> AsyncGenerator[bytes, None]:
        read = 0
        async for chunk in request.stream():
            read += len(chunk)
            if read > most:
                raise _failure(413, f"an upload of more than {most:,} bytes")
            take(len(chunk))
            yield chunk

    parser = _Form(request.headers, limited(), max_files=2)
    parser.spool_max_size = most + 1  # keep pictures of people's skin in memory, off the disk
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise _failure(400, f"malformed form: {error.message.rstrip('.')}") from None
    except UnicodeError:  # raised by some codecs, such as idna, and not handled by the parser
        raise _failure(400, "malformed form: a name is not in the charset that it claims") from None
    try:
        match form.multi_items():
            case [("image", UploadFile() as file)]:
                return await file.read()
        raise _failure(422, "exactly one file named image is needed, and no other field")
    finally:
        await form.close()


class _Form(MultiPartParser):
    """Form whose fields are all files, even without a file name or with the `filename*` of older clients."""

    def on_headers_finished(self) -> None:
        part = self._current_part
        kind, options = parse_options_header(part.content_disposition)
        if b"filename" not in options and b"name" in options:
            part.content_disposition = b'%s; name="%s"; filename="unnamed"' % (kind, options[b"name"])
        super().on_headers_finished()


def _failure(status: int, sentence: str) -> HTTPException:
    # The rest of the upload is not read, so the connection cannot be used again.
    headers = {"connection": "close"} | ({"retry-after": "5"} if status == 503 else {})
    return HTTPException(status, sentence, headers)


async def _say_failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": "the server failed"}, 500, HEADERS | {"cache-control": "no-store"})


class _Files(StaticFiles):
    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        try:
            return super().lookup_path(path)
        except OSError:  # a name that is too long, a circular link, no permission to read
            return "", None

    def file_response(self, full_path: str | os.PathLike[str], *details: Any, **more: Any) -> Response:
        response = super().file_response(full_path, *details, **more)
        kind = _TYPES.get(Path(full_path).suffix.lower())
        if kind:
            response.headers["content-type"] = kind
        # Browsers must check each time whether a file has changed: a model must not outlive its calibration.
        response.headers["cache-control"] = "no-cache"
        return response


class _Headers:
    """Middleware that adds `HEADERS` to every answer; only files of the app may be cached."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)
