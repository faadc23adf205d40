"""Requests that `tests.stress.siege` sends, and the statuses promised for them."""

import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

SECRET = b"what lies outside of the folder"
LARGE = 64 * 2**20  # bytes of a file in the folder
MOST = 16 * 2**20  # largest upload in bytes, as `Limits.upload`
SCRIPT = b"<script>alert(1)</script>"
UNREADABLE = ("400", "415", "422")
METHODS = {
    *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "LOCK"),
    *("BREW", "GETS", "get"),
}
# Paths of other servers, and paths similar to ours.
UNLISTED = [
    *(
        "/redoc",
        "/docs/",
        "/docs/oauth2-redirect",
        "/openapi.yaml",
        "/swagger",
        "/metrics",
        "/admin",
        "/admin/",
    ),
    *("/login", "/.env", "/.git/config", "/robots.txt", "/server-status", "/debug/pprof", "/actuator/health"),
    *(
        "/api",
        "/v1/score",
        "/score/",
        "/scores",
        "/score.json",
        "/score/1",
        "/healthz/",
        "/health",
        "/graphql",
    ),
    *(
        "/wp-login.php",
        "/cgi-bin/sh",
        "/static/",
        "/model/",
        "/files.json.bak",
        "/favicon.ico",
        "/__init__.py",
    ),
]


@dataclass(frozen=True)
class Request:
    """Bytes to send, one part after the other, and the answers allowed."""

    kind: str
    parts: tuple[bytes, ...]
    allowed: tuple[str, ...] = ("200",)
    method: str = "GET"
    untold: tuple[bytes, ...] = ()  # what no answer may contain


def photograph() -> bytes:
    """A PNG of 96x96 pixels that passes the gate."""
    grain = np.random.default_rng(0).normal(0, 12, (96, 96, 1))
    file = io.BytesIO()
    Image.fromarray(np.clip(np.array([190, 140, 115]) + grain, 0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def form(content: bytes, *, name: bytes = b"image", filename: bytes = b"photo.png") -> bytes:
    """A form with the boundary x."""
    head = b'--x\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n\r\n' % (name, filename)
    return head + content + b"\r\n--x--\r\n"


def start_of_form() -> bytes:
    """A form up to the start of its file's content."""
    return form(b"")[: -len(b"\r\n--x--\r\n")]


def post(
    body: bytes,
    *,
    length: int | None = None,
    content_type: bytes = b"multipart/form-data; boundary=x",
    kind: str = "",
    allowed: tuple[str, ...] = ("200",),
    untold: tuple[bytes, ...] = (),
) -> Request:
    """A POST request to /score that claims `length` bytes; None = the real length."""
    head = (
        b"POST /score HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: %s\r\n" % content_type
    )
    head += b"Content-Length: %d\r\n\r\n" % (len(body) if length is None else length)
    return Request(kind, (head, body), allowed, "POST", untold)


def get(
    path: str, *extra: str, kind: str = "", allowed: tuple[str, ...] = ("200",), method: str = "GET"
) -> Request:
    """A request of any method without a body."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *extra, "\r\n"]
    return Request(kind, ("\r\n".join(lines).encode("latin-1"),), allowed, method)


def honest(kind: str) -> Request:
    """A well-formed request."""
    return post(form(photograph()), kind=kind)


def traversals() -> Iterator[Request]:
    """Yield paths that try to leave the folder, each in several encodings."""
    ups = ["..", "%2e%2e", ".%2e", "%252e%252e", "..%00", "....", "%c0%ae%c0%ae", "..;", "%u002e%u002e"]
    slashes = ["/", "%2f", "\\", "%5c", "//", "/./", "%c0%af", "%252f"]
    targets = ["secret.txt", "app-beside/secret.txt", "etc/passwd"]
    for up, slash, depth, target in itertools.product(ups, slashes, (1, 2, 8), targets):
        for start in ("/", "/model/", "//"):
            path = start + (up + slash) * depth + target
            yield get(path, kind="path traversal", allowed=("404", "400"))
    absolute = [
        "//etc/passwd",
        "/%2fetc/passwd",
        "/file:///etc/passwd",
        "/C:%5cboot.ini",
        "/%5c%5chost%5cshare",
    ]
    nothing = [
        "/index.html%00",
        "/%00",
        "/index.html%00.txt",
        "/" + "a" * 300,
        "/" + "a/" * 5000,
        "/pipe",
        "/loop",
    ]
    links = [
        "/link.txt",
        "/outside/secret.txt",
        "/outside/app-beside/secret.txt",
        "/loop/index.html",
        "/outside",
    ]
    strange = [
        "/index.html/..%2f..%2fsecret.txt",
        "/INDEX~1.HTM",
        "/index.html::$DATA",
        "/~root",
    ]
    for path in absolute + nothing + links + strange:
        yield get(path, kind="path traversal", allowed=("404", "400"))


def unlisted(rng: np.random.Generator) -> Iterator[Request]:
    """Yield requests for pages of other servers and for random names."""
    drawn = ["/" + "".join(chr(c) for c in rng.integers(97, 123, rng.integers(1, 40))) for _ in range(300)]
    for path in UNLISTED + drawn:
        for method in ("GET", "HEAD"):
            yield get(path, kind="route that is not listed", allowed=("404", "405"), method=method)
        yield get(path, kind="route that is not listed", allowed=("404", "405"), method="POST")


def wrong_methods() -> Iterator[Request]:
    """Yield requests with every method except the right ones."""
    rights = {
        "/score": ["POST"],
        "/healthz": ["GET"],
        "/docs": ["GET", "HEAD"],
        "/openapi.json": ["GET", "HEAD"],
    }
    rights |= {"/": ["GET", "HEAD"], "/app.js": ["GET", "HEAD"], "/large.bin": ["GET", "HEAD"]}
    for path, right in rights.items():
        for method in sorted(METHODS - set(right)):
            yield get(path, kind="wrong method", allowed=("405",), method=method)
            with_body = get(path, "Content-Length: 9", kind="wrong method", allowed=("405",), method=method)
            yield Request(with_body.kind, (*with_body.parts, b"<script>x"), ("405",), method)


def files() -> Iterator[Request]:
    """Yield all kinds of requests for real files (whole, conditional, ranges) and other host names."""
    for path in ("/", "/app.js", "/app.css", "/index.html", "/manifest.webmanifest"):
        yield get(path, kind="file")
        yield get(path, kind="file", method="HEAD")
        yield get(path, "If-None-Match: *", kind="file that has not changed", allowed=("304",))
        later = "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT"
        yield get(path, later, kind="file that has not changed", allowed=("304",))
        for span in (
            "0-0",
            "-1",
            "5-2",
            "0-",
            "99999999-",
            "x",
            "0-1,2-3",
            "0-0," * 3000 + "1-1",
            "-0",
            "0" * 99,
        ):
            yield get(
                path, f"Range: bytes={span}", kind="range of a file", allowed=("200", "206", "400", "416")
            )
    for path in ("/healthz", "/docs", "/openapi.json"):
        yield get(path, kind="file")
    for host in (
        "evil.example",
        "",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "x" * 5000,
        "a b",
        "@",
        "[::1",
    ):
        request = b"GET /healthz HTTP/1.1\r\nHost: %s\r\n\r\n" % host.encode()
        yield Request("another host name", (request,), ("400",))
    yield Request("another host name", (b"GET / HTTP/1.0\r\n\r\n",), ("400",))


def no_http() -> Iterator[Request]:
    """Yield input that is not an HTTP request, or not one that can be answered."""
    chunked = b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    chunked += b"Transfer-Encoding: chunked\r\n\r\n"
    host = b"Host: localhost\r\n"
    bad = [
        b"\r\n\r\n\r\nx",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300),  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + host + host + b"\r\n",
        b"GET / HTTP/1.1\r\n" + host + b"x : y\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + host + b"x: a\x00b\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\n" + host + b"\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\n" + host + b"\r\n",
        b"<script>alert(1)</script> / HTTP/1.1\r\n" + host + b"\r\n",
        chunked + b"zz\r\n",
        chunked + b"-5\r\n",
        chunked + b"ffffffffffffffffffffffff\r\n",
        chunked.replace(b"chunked", b"gzip") + b"x",
        chunked.replace(b"chunked", b"chunked, chunked") + b"x",
    ]
    for length in (b"-1", b"1e3", b"0x10", b"9" * 5000, b"1, 2", b"+5", b"5\r\nContent-Length: 6"):
        bad.append(b"POST /score HTTP/1.1\r\n" + host + b"Content-Length: " + length + b"\r\n\r\nx")
    for part in bad:
        yield Request("malformed HTTP", (part,), ("400", "501"), untold=(SCRIPT,))
    # Limits apply to what arrives in one piece, so some pass; a client still sending may miss the answer.
    for size in (70_000, 1_000_000):
        for long in (
            b"/" + b"a" * size,
            b"/ HTTP/1.1\r\nx: " + b"y" * size,
            b"/" + b"\r\nx: y" * (size // 6),
        ):
            yield Request("long headers", (b"GET " + long + b"\r\n\r\n",), ("400", "404", "none"))
    for extra in (
        "Upgrade: websocket\r\nConnection: Upgrade",
        "Upgrade: h2c\r\nConnection: Upgrade",
        "Expect: x",
    ):
        yield get("/healthz", extra, kind="upgrade")
    yield get("http://localhost/healthz", kind="address as the target", allowed=("200", "404"))
    yield get("*", kind="address as the target", allowed=("404", "405"), method="OPTIONS")
    yield get("healthz", kind="address as the target", allowed=("404", "400"))
    # Two lengths in one request: whichever is used, it must count as one request.
    both = (
        chunked.replace(b"\r\n\r\n", b"\r\nContent-Length: 6\r\n\r\n")
        + b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"
    )
    yield Request("malformed HTTP", (both,), UNREADABLE, "POST")


def script_names() -> Iterator[Request]:
    """Yield good images under names that are scripts, paths or terminal control sequences."""
    names = [
        SCRIPT,
        b"../../../tmp/x.png",
        b"/etc/passwd",
        b"a\\x22onload=\\x22alert(1)",
        b"\x1b[2J\x1b]0;x\x07named",
    ]
    names += [
        b"named\x00.png",
        b"named" * 200,
        "named\u202egnp.exe".encode(),
        b"\xff\xfenamed",
        b"%3Cscript%3Enamed",
    ]
    names += [b"{{named}}", b"${named}", b"%s%n named", b"CON", b"named;rm -rf", b"named\t.png"]
    for name in names:
        untold = (SCRIPT, b"named", b"passwd", b"onload", b"\x1b")
        yield post(form(photograph(), filename=name), kind="script in a file name", untold=untold)
        allowed = ("422", "400")
        kind = "script in a field name"
        yield post(form(photograph(), name=name), kind=kind, allowed=allowed, untold=untold)
