"""Uploads that `tests.stress.siege` sends: faulty forms, and more bytes than are accepted."""

import itertools
from collections.abc import Iterator

import numpy as np

from tests.stress.siege_requests import MOST, UNREADABLE, Request, form, photograph, post, start_of_form

CHARSETS = [
    b"idna",
    b"punycode",
    b"undefined",
    b"utf-7",
    b"utf-16",
    b"rot13",
    b"zlib",
    b"unicode_escape",
    b"x" * 999,
]
LINES = [
    b"Content-Type: text/html",
    b"Content-Transfer-Encoding: base64",
    b": no name",
    b"x" * 5000,
    b"\x00: \xff",
]
LINES += [b"Content-Disposition: attachment", b"Content-Disposition: form-data", b"Content-Disposition:"]
LINES += [b"Content-Disposition: form-data; name=\"image\"; filename*=utf-8''%ff%fe", b"a: b" * 3000]


def malformed(rng: np.random.Generator) -> Iterator[Request]:
    """Yield forms endlessly, each with one to four faults."""
    good = form(photograph())
    allowed = ("200", "413", *UNREADABLE)
    kinds = [
        "multipart/form-data",
        "multipart/mixed",
        "application/json",
        "text/html",
        "",
        "multipart/form-data;" * 50,
    ]
    while True:
        body, content_type = bytearray(good), b"multipart/form-data; boundary=x"
        for _ in range(rng.integers(1, 5)):
            at, fault = int(rng.integers(0, min(len(body), 200) + 1)), int(rng.integers(0, 12))
            if fault == 0:
                del body[int(rng.integers(0, len(body) + 1)) :]
            elif fault == 1:
                del body[at : at + int(rng.integers(1, 40))]
            elif fault == 2 and body:
                body[min(at, len(body) - 1)] ^= 1 << int(rng.integers(0, 8))
            elif fault == 3:
                body[at:at] = rng.bytes(int(rng.integers(1, 40)))
            elif fault == 4:
                body = body.replace(b"\r\n", rng.choice([b"\n", b"\r", b"\r\r\n", b""]))
            elif fault == 5:
                body += body[: int(rng.integers(0, 2000))]
            elif fault == 6:
                body[:0] = rng.choice(
                    [b"\r\n", b"preamble", b"--", b"--x--\r\n", b"--y\r\n", b"\x00" * 70_000]
                )
            elif fault == 7:
                body = body.replace(
                    b"\r\n\r\n", b"\r\n" + LINES[int(rng.integers(len(LINES)))] + b"\r\n\r\n", 1
                )
            elif fault == 8:
                content_type = (
                    b"multipart/form-data; boundary=x; charset=" + CHARSETS[int(rng.integers(len(CHARSETS)))]
                )
            elif fault == 9:
                boundary = rng.choice(
                    [b"", b'"', b'"x', b"x" * 300, b"\xff", b"x;boundary=y", b" x", b"--x", b"*0=x"]
                )
                content_type = b"multipart/form-data; boundary=" + boundary
            elif fault == 10:
                content_type = kinds[int(rng.integers(len(kinds)))].encode()
            else:
                piece = b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\nv\r\n'
                body[:0] = piece * int(rng.integers(1, 200))
        yield post(bytes(body), kind="malformed form", content_type=content_type, allowed=allowed)


def oversized() -> Iterator[Request]:
    """Yield uploads of more than `MOST` bytes endlessly; one in a hundred does not state its length."""
    kind, refused = "oversized upload", ("413",)
    start = start_of_form()
    head = post(b"").parts[0].replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    chunk = b"100000\r\n" + bytes(2**20) + b"\r\n"
    opening = b"%x\r\n%s\r\n" % (len(start), start)
    for place in itertools.count():
        if place % 100 == 0:
            yield Request(kind, (head, opening, *[chunk] * 17), refused, "POST")
        elif place % 3 == 0:
            yield post(start + bytes(2**20), length=MOST + 1, kind=kind, allowed=refused)
        elif place % 3 == 1:
            yield post(start, length=10**12 + place, kind=kind, allowed=refused)
        else:
            yield post(b"", length=int("9" * (8 + place % 12)), kind=kind, allowed=refused)
