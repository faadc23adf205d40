"""The server of a trained workdir under load on loopback: requests per second, latency, errors, memory.

python -m benchmarks.server --workdir=runs/mim --image=photo.jpg

Starts `launch.py --mode=serve` and calls `POST /score` from 1, 8 and 64 threads of this process, each with
one persistent connection. Client and server share the machine's cores. Memory is that of the server's
process: resident (VmRSS of Linux) before and after each round, and the peak so far (VmHWM).
"""

import argparse
import http.client
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

BOUNDARY = "the-boundary"


def body_of(image: bytes) -> bytes:
    """Make the body of a multipart form with one file."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="photo"\r\n\r\n'
    return head.encode() + image + f"\r\n--{BOUNDARY}--\r\n".encode()


def drawn_image() -> bytes:
    """Make a JPEG of 1600x1200 pixels of skin colour with grain, about 1 MB."""
    grain = np.random.default_rng(0).normal(0, 25, (1200, 1600, 1))
    pixels = np.clip(np.array([190, 140, 115]) + grain, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=85)
    return file.getvalue()


def memory(process: int) -> dict[str, int]:
    """Memory of a process in MB, resident and peak."""
    status = Path(f"/proc/{process}/status").read_text()
    return {name: int(re.findall(rf"{name}:\s+(\d+)", status)[0]) // 1024 for name in ("VmRSS", "VmHWM")}


def measure(port: int, body: bytes, *, clients: int, seconds: float) -> tuple[float, list[float], int]:
    """Return requests per second, the latency of each in seconds, and the number of failures."""
    delays: list[float] = []
    failed = 0
    lock = threading.Lock()
    end = time.perf_counter() + seconds

    def work() -> None:
        nonlocal failed
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while time.perf_counter() < end:
            began = time.perf_counter()
            try:
                headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
                connection.request("POST", "/score", body, headers)
                reply = connection.getresponse()
                good = reply.status == 200 and json.loads(reply.read())["decision"] != "unusable"
            except (OSError, http.client.HTTPException, ValueError):
                connection.close()
                good = False
            with lock:
                delays.append(time.perf_counter() - began)
                failed += not good
        connection.close()

    began = time.perf_counter()
    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(delays) / (time.perf_counter() - began), delays, failed


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--image", help="a photograph that passes the gate (default: a generated JPEG)")
    parser.add_argument("--seconds", type=float, default=15, help="time per number of clients")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    options = parser.parse_args()
    image = Path(options.image).read_bytes() if options.image else drawn_image()
    command = [sys.executable, "launch.py", "--mode=serve", f"--workdir={options.workdir}", "--port=0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        port = 0
        for line in server.stderr:
            if found := re.search(r"serving: http://.*:(\d+)/", line):
                port = int(found[1])
                break
            print(line, end="", file=sys.stderr)
        if not port:
            sys.exit("the server did not start")
        body = body_of(image)
        _, _, failed = measure(port, body, clients=8, seconds=3)  # warm
        if failed:
            sys.exit("the server refuses the image")
        print(f"image of {len(image):,} bytes, {options.seconds:g} s each, {os.cpu_count()} cores")
        print(
            "| clients | requests/s | median, ms | p99, ms | requests | errors "
            "| MB before | MB after | MB at most |"
        )
        print("|---" * 9 + "|")
        for clients in options.clients:
            before = memory(server.pid)
            rate, delays, failed = measure(port, body, clients=clients, seconds=options.seconds)
            after = memory(server.pid)
            middle, late = (1000 * float(np.quantile(delays, q)) for q in (0.5, 0.99))
            cells = [clients, f"{rate:.1f}", f"{middle:.0f}", f"{late:.0f}", len(delays), failed]
            cells += [before["VmRSS"], after["VmRSS"], after["VmHWM"]]
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
