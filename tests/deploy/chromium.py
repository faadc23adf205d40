"""Headless Chromium for tests, driven by its own protocol over two pipes: no driver, package or port."""

import contextlib
import functools
import http.server
import importlib.util
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

from tests.launching import LIMIT

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe"),
)


SCREENS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]


def find_axe():
    """Path of axe-core, which checks accessibility: the file AXE_CORE, or that of the package."""
    package = importlib.util.find_spec("axe_core_python")
    own = Path(package.origin).with_name("axe.min.js") if package else None
    return os.environ.get("AXE_CORE") or own


def find():
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


with_axe = pytest.mark.skipif(
    not (find() and find_axe()), reason="no Chromium, or no axe-core: see CONTRIBUTING.md"
)


class Browser:
    """One page in a new browser, which is closed at the end of the `with` statement."""

    def __enter__(self):
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        # Chromium reads commands from 3 and writes answers to 4.
        pipes = f'exec "$0" "$@" 3</dev/fd/{to_read} 4>/dev/fd/{to_write}'
        self._process = subprocess.Popen(
            ["sh", "-c", pipes, find(), *QUIET, f"--user-data-dir={self._profile.name}"],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self._numbers, self._rest, self.messages = itertools.count(1), b"", []
        self.requests = []
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM", "Network"):
            self.send(f"{domain}.enable")
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError, AssertionError):
            self._send("Browser.close")
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._read)
        os.close(self._write)
        self._profile.cleanup()

    def send(self, method, **params):
        """Send a command to the page; return its answer."""
        return self._send(method, self._session, **params)

    def evaluate(self, expression):
        """Value of a JavaScript expression; promises are awaited."""
        found = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def open(self, url):
        """Open a page and wait until it has replaced the previous one."""
        self.evaluate("document.body.dataset.old = 1")
        self.send("Page.navigate", url=url)
        self.wait_for("document.body && !document.body.dataset.old && document.readyState === 'complete'")

    def wait_for(self, expression, seconds=LIMIT):
        """Wait until an expression is true; return its value."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if value := self.evaluate(expression):
                return value
            time.sleep(0.05)
        raise AssertionError(f"not within {seconds} s: {expression}; said: {self.messages}")

    def findings(self):
        """Accessibility problems that axe-core finds on a desktop and a phone, in light and dark."""
        self.evaluate(f"{Path(find_axe()).read_text(encoding='utf-8')};0")
        said = (
            "axe.run({resultTypes: ['violations']}).then((found) => found.violations.flatMap((each) => "
            "each.nodes.map((node) => `${each.impact}: ${each.help}: ${node.html.slice(0, 200)}`)))"
        )
        found = {}
        for width, scheme in SCREENS:
            sizes = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
            self.send("Emulation.setDeviceMetricsOverride", **sizes)
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            self.send("Emulation.setEmulatedMedia", features=features)
            found[width, scheme] = self.evaluate(said)
            assert self.evaluate("document.documentElement.scrollWidth <= innerWidth"), (width, "too wide")
        return {screen: words for screen, words in found.items() if words}

    def choose(self, selector, path):
        """Put a file into a file input."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def _send(self, method, session=None, **params):
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        os.write(
            self._write, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0"
        )
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self._note(answer)

    def _note(self, event):
        """Keep the page's errors and warnings, and every address that it requested."""
        params = event.get("params", {})
        if event.get("method") == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.messages.append(params["entry"]["text"])
        elif event.get("method") == "Runtime.exceptionThrown":
            self.messages.append(params["exceptionDetails"]["text"])
        elif event.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def _receive(self):
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], 60)
            assert ready, "Chromium does not answer"
            part = os.read(self._read, 1 << 20)
            assert part, "Chromium has exited"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)


class _Handler(http.server.SimpleHTTPRequestHandler):
    extensions_map = {  # noqa: RUF012 - as in the base class
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".webmanifest": "application/manifest+json",
    }

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def served(folder: Path):
    """Serve a folder by a plain web server; yield its address."""
    handler = functools.partial(_Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()
