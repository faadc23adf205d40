"""The server as its clients see it: answers, refusals, limits, headers, files; and the queue behind it."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient

from mim_jax.data.images import decode_image
from mim_jax.data.quality import Gate
from mim_jax.deploy.server.app import HEADERS, Limits, create_app
from mim_jax.deploy.server.scoring_queue import Busy, ScoringQueue
from tests.deploy.small import make_combined
from tests.launching import LIMIT

pytestmark = pytest.mark.usefixtures("compiled_quickly")

SIZE = 32


@dataclass(frozen=True)
class Assessed:
    """A stand-in for `mim_jax.decide.decision.Assessment`."""

    score: float
    similarities: dict
    p_value: float
    decision: str
    reasons: tuple


def assess(images):
    """Score images by the mean of their pixels."""
    return [Assessed(float(x.mean()), {"ssim": 0.5}, 0.25, "mpox_like", ("a reason",)) for x in images]


def picture(seed=0, color=(190, 140, 115), size=96):
    grain = np.random.default_rng(seed).normal(0, 12, (size, size, 1))
    data = BytesIO()
    Image.fromarray(np.clip(np.array(color) + grain, 0, 255).astype(np.uint8)).save(data, "PNG")
    return data.getvalue()


def client(score=assess, **options):
    app = create_app(score, **{"image_size": SIZE, "versions": {"mim_jax": "1"}, "hosts": None} | options)
    return TestClient(app, raise_server_exceptions=False)


def send(server, data=None, name="image", **options):
    return server.post("/score", files={name: ("photo.png", picture() if data is None else data)}, **options)


def test_a_good_image_is_assessed():
    with client() as server:
        reply = send(server)
    assert reply.status_code == 200
    assert reply.json() == {
        "score": float(decode_image(picture(), size=SIZE).mean()),
        "similarities": {"ssim": 0.5},
        "p_value": 0.25,
        "decision": "mpox_like",
        "reasons": ["a reason"],
        "versions": {"mim_jax": "1"},
    }


def test_every_score_of_a_combined_detector_is_in_the_answer():
    detector = make_combined()
    with client(detector.assess, image_size=detector.image_size, min_side=detector.min_side) as server:
        answer = send(server).json()
    image = decode_image(picture(), size=detector.image_size)
    expected = {name: scores.mean() for name, scores in detector.similarities(image).items()}
    assert list(answer["similarities"]) == list(detector.metrics)
    assert answer["similarities"] == pytest.approx(expected, abs=1e-6)
    assert answer["score"] == answer["similarities"]["combined"]


def test_an_image_that_cannot_be_judged_is_unusable_with_its_reason():
    with client() as server, client(gate=Gate(not_skin=False), min_side=97) as open_server:
        said = {}
        for name, data in {
            "blue": picture(color=(60, 120, 200)),
            "cut": picture()[:999],
            "empty": b"",
        }.items():
            reply = send(server, data)
            assert reply.status_code == 200 and reply.json()["decision"] == "unusable"
            assert reply.json()["score"] is None and reply.json()["similarities"] == {}
            (said[name],) = reply.json()["reasons"]
        assert send(open_server).json()["reasons"] == ["96x96 pixels; at least 97x97 are needed"]
        assert send(open_server, picture(color=(60, 120, 200), size=97)).json()["decision"] == "mpox_like"
    assert said["blue"].startswith("not like skin: 0%")
    assert said["cut"].startswith("damaged: ") and said["empty"] == "an empty file (0 bytes)"


def test_what_is_no_upload_of_one_image_is_refused():
    odd_name = b'--x\r\ncontent-disposition: form-data; name="\xff"\r\n\r\nv\r\n--x--\r\n'
    with client() as server:
        for reply, status, word in (
            (server.post("/score", content=picture()), 415, "got nothing"),
            (server.post("/score", json={"image": "x"}), 415, "got application/json"),
            (server.post("/score", headers={"content-type": "multipart/form-data"}), 400, "boundary"),
            (server.post("/score", content=b"--x\r\n\r\n", headers=form()), 400, "malformed form"),
            (send(server, name="photo"), 422, "named image"),
            (server.post("/score", data={"image": "text"}, files={"x": b""}), 422, "exactly one"),
            (server.post("/score", files=[("image", picture())] * 2), 422, "exactly one"),
            (server.post("/score", files=[("image", picture())] * 3), 400, "Too many files"),
            (server.post("/score", data={"more": "x"}, files={"image": picture()}), 422, "no other field"),
            (server.post("/score", content=odd_name, headers=form("; charset=undefined")), 400, "charset"),
            (server.get("/score"), 405, "Not Allowed"),
        ):
            assert reply.status_code == status and word in reply.json()["detail"], reply.text
        assert send(server).status_code == 200


@pytest.mark.parametrize("name", ["", "; filename*=UTF-8''%E6%82%A3.png", '; filename="a.png"'])
def test_a_file_needs_no_name(name):
    """RFC 7578 leaves `filename` to the client, and older ones write `filename*`."""

    def sent(field):
        head = f'--x\r\ncontent-disposition: form-data; name="{field}"{name}\r\n\r\n'.encode()
        return server.post("/score", content=head + picture() + b"\r\n--x--\r\n", headers=form())

    with client() as server:
        assert sent("image").json()["score"] == float(decode_image(picture(), size=SIZE).mean())
        assert sent("photo").status_code == 422 and "named image" in sent("photo").json()["detail"]


def form(more=""):
    return {"content-type": f"multipart/form-data; boundary=x{more}"}


def test_too_large_uploads_are_refused_before_they_are_read():
    taken = 0

    def body():
        nonlocal taken
        yield b'--x\r\ncontent-disposition: form-data; name="image"; filename="a"\r\n\r\n'
        for _ in range(1000):
            taken += 1000
            yield bytes(1000)

    with client(limits=Limits(upload=20_000)) as server:
        told = send(server, bytes(20_000))
        assert told.status_code == 413 and "at most 20,000" in told.json()["detail"]
        # Without a length in the header; the test client sends the whole body in any case.
        untold = server.post("/score", content=body(), headers=form())
        assert untold.status_code == 413 and "more than 20,000" in untold.json()["detail"]
        assert send(server, picture(size=60), headers={"content-length": "x"}).status_code == 413
        assert send(server, picture(size=60)).status_code == 200


def test_every_answer_has_the_headers_that_keep_a_page_in_bounds(tmp_path):
    (tmp_path / "index.html").write_text("<p>app")
    with client(folder=tmp_path, hosts=["testserver"]) as server:
        replies = [server.get(path) for path in ("/", "/docs", "/openapi.json", "/healthz", "/nothing")]
        replies += [send(server), server.post("/score"), server.get("/", headers={"host": "evil.example"})]
    assert [reply.status_code for reply in replies] == [200, 200, 200, 200, 404, 200, 415, 400]
    for reply in replies:
        assert HEADERS.items() <= dict(reply.headers).items()
        assert "no-" in reply.headers["cache-control"]
    policy = replies[0].headers["content-security-policy"]
    assert policy.startswith("default-src 'none'") and "unsafe-inline" not in policy and "http" not in policy


def test_nothing_is_fetched_from_elsewhere_and_the_description_is_whole():
    with client() as server:
        page, described = server.get("/docs").text, server.get("/openapi.json").json()
        assert server.get("/").text == page and server.get("/redoc").status_code == 404
        assert server.get("/healthz").json() == {
            "status": "ok",
            "image_size": SIZE,
            "versions": {"mim_jax": "1"},
        }
    assert "<script" not in page and "https:" not in page and "POST /score" in page
    operation = described["paths"]["/score"]["post"]
    assert set(operation["responses"]) == {"200", "400", "413", "415", "422", "500", "503"}
    upload = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert upload["properties"]["image"]["format"] == "binary"


def test_files_of_the_app_have_their_types_and_nothing_else_is_served(tmp_path, monkeypatch):
    app = tmp_path / "app"
    (app / "model").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("secret")
    (app / "link.txt").symlink_to(tmp_path / "secret.txt")
    (app / "loop").symlink_to("loop")
    (app / "outside").symlink_to(tmp_path)
    types = {
        "index.html": "text/html; charset=utf-8",
        "a.mjs": "text/javascript; charset=utf-8",
        "a.js": "text/javascript; charset=utf-8",
        "a.wasm": "application/wasm",
        "model/a.onnx": "application/octet-stream",
        "a.json": "application/json",
        "a.webmanifest": "application/manifest+json",
    }
    for name in types:
        (app / name).write_text(name)
    # Some systems guess plain text for modules.
    monkeypatch.setattr(
        "starlette.responses.guess_type",
        lambda name: ("text/html" if str(name).endswith("html") else "text/plain", None),
    )
    with client(folder=app) as server:
        for name, kind in types.items():
            reply = server.get(f"/{name}")
            assert reply.text == name and reply.headers["content-type"] == kind
        assert server.get("/").text == "index.html"
        paths = ["/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/model/..%5c..%5c/secret.txt"]
        paths += ["/loop", "/loop/secret.txt", "/outside/secret.txt", "/score/", "/healthz/"]
        paths += ["//etc/passwd", "/%2fetc/passwd", "/link.txt", "/%00", "/model/", "/" + "a" * 300]
        for path in paths:
            reply = server.get(f"http://testserver{path}")
            assert reply.status_code == 404 and "secret" not in reply.text, path
        wrong = server.get("/score")
        assert wrong.status_code == 405 and wrong.headers["allow"] == "POST"
    with pytest.raises(ValueError, match=r"no index\.html"):
        create_app(assess, image_size=SIZE, folder=tmp_path)


def test_many_at_once_each_get_their_own_answer_in_batches():
    sizes = []

    def score(images):
        sizes.append(len(images))
        time.sleep(0.02)
        return assess(images)

    pictures = [picture(seed) for seed in range(32)]
    pictures[7::8] = [b"not an image"] * 4
    with client(score) as server, ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda data: send(server, data).json(), pictures))
    for data, reply in zip(pictures, replies, strict=True):
        right = float(decode_image(data, size=SIZE).mean()) if data[:4] == b"\x89PNG" else None
        assert reply["score"] == right
    assert sum(sizes) == 28 and 1 < max(sizes) <= 8


def test_a_slow_scorer_is_given_up_and_the_next_request_works():
    began, go_on = threading.Event(), threading.Event()

    def score(images):
        if not began.is_set():
            began.set()
            assert go_on.wait(LIMIT)
        return assess(images)

    with client(score, limits=Limits(seconds=0.3)) as server:
        late = send(server)
        assert late.status_code == 503 and "0.3 s" in late.json()["detail"]
        assert late.headers["retry-after"] == "5"
        go_on.set()
        end = time.monotonic() + LIMIT  # a loaded machine may need more than 0.3 s for the next one, too
        while (reply := send(server)).status_code == 503 and time.monotonic() < end:
            pass
        assert reply.status_code == 200


def test_a_scorer_that_fails_spoils_one_answer():
    def score(images):
        if any(image.mean() < 100 for image in images):
            raise RuntimeError("a secret of the machine")
        return assess(images)

    dark = picture(color=(110, 75, 60))
    with client(score) as server, ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda data: send(server, data), [picture(), dark, picture()] * 4))
    assert [reply.status_code for reply in replies] == [200, 500, 200] * 4
    assert "secret" not in replies[1].text and "RuntimeError" in replies[1].json()["detail"]


def test_the_queue_refuses_what_it_cannot_hold_and_forgets_what_is_cancelled():
    begun, go_on, scored = threading.Event(), threading.Event(), []

    def score(images):
        begun.set()
        assert go_on.wait(LIMIT)
        scored.extend(int(image) for image in images)
        return [int(image) for image in images]

    queue = ScoringQueue(score, batch=2, waiting=3)
    first = queue.submit(np.array(0))
    assert begun.wait(LIMIT)
    waiting = [queue.submit(np.array(place)) for place in (1, 2, 3)]
    with pytest.raises(Busy):
        queue.submit(np.array(4))
    waiting[1].cancel()
    go_on.set()
    assert [first.result(LIMIT), waiting[0].result(LIMIT), waiting[2].result(LIMIT)] == [0, 1, 3]
    queue.close()
    assert scored == [0, 1, 3]


def test_a_scorer_that_gives_too_few_answers_fails_its_callers_and_not_the_next():
    begun, go_on = threading.Event(), threading.Event()

    def score(images):
        begun.set()
        assert go_on.wait(LIMIT)
        return [int(image) for image in images][:1] if images[0] < 3 else []

    queue = ScoringQueue(score, batch=2)
    first = queue.submit(np.array(0))
    assert begun.wait(LIMIT)
    others = [queue.submit(np.array(place)) for place in (1, 2, 3)]  # 1 and 2 are scored together
    go_on.set()
    assert [first.result(LIMIT), others[0].result(LIMIT), others[1].result(LIMIT)] == [0, 1, 2]
    with pytest.raises(ValueError, match="0 answers to 1 images"):
        others[2].result(LIMIT)
    assert queue.submit(np.array(0)).result(LIMIT) == 0
    queue.close()
