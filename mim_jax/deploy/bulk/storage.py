"""Files by path or URI, local or in a bucket: read, list, and write atomically.

`s3://`, `gs://`, `abfs://` and `hdfs://` use pyarrow's file systems, any other scheme uses fsspec. Keys and
regions come from the environment, as for the provider's own tools.
"""

import contextlib
import fnmatch
import functools
import os
import re
import secrets
from pathlib import Path
from typing import Any

from pyarrow import fs

from mim_jax.data.images import MAX_BYTES, UnusableImage, read_bytes

_OF_PYARROW = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs")
_GLOB = re.compile(r"[*?\[]")
TEMPORARY = ".tmp"  # suffix of a file that is being written


def absolute(path: str) -> str:
    """Make a path absolute, and return a URI as it is, without a trailing slash.

    >>> absolute("s3://bucket/photos/"), absolute("file:///data")
    ('s3://bucket/photos', '/data')
    """
    path = path.removeprefix("file://")
    return path.rstrip("/") if "://" in path else os.path.abspath(os.path.expanduser(path))


def is_pattern(path: str) -> bool:
    """Whether a path is a glob, rather than an existing file whose name looks like one.

    >>> is_pattern("photos/*.jpg"), is_pattern("photos")
    (True, False)
    """
    return bool(_GLOB.search(path)) and not os.path.exists(path)


def locate(path: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of an absolute path or URI, and the file's name in it."""
    scheme, separator, rest = path.partition("://")
    if not separator:
        return fs.LocalFileSystem(), path
    authority, _, key = rest.partition("/")
    files, root = _connect(scheme, authority)
    return files, f"{root.rstrip('/')}/{key}" if key else root


@functools.cache
def _connect(scheme: str, authority: str) -> tuple[fs.FileSystem, str]:
    where = f"{scheme}://{authority}"
    if scheme in _OF_PYARROW:
        try:
            return fs.FileSystem.from_uri(where)
        except (OSError, ValueError) as error:
            raise ValueError(f"{where} cannot be reached: {one_line(error)}") from error
    try:
        import fsspec

        return fs.PyFileSystem(fs.FSSpecHandler(fsspec.filesystem(scheme))), authority
    except (ImportError, ValueError) as error:
        raise ValueError(f"{where} needs fsspec and its package for {scheme}: {one_line(error)}") from error


def kind(path: str) -> str:
    """Return whether a path is a "file", a "folder" or "absent"; ValueError if that cannot be read."""
    files, name = locate(path)
    try:
        found = files.get_file_info(name).type
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {one_line(error)}") from error
    return {fs.FileType.NotFound: "absent", fs.FileType.Directory: "folder"}.get(found, "file")


def walk(path: str, *, pattern: str = "") -> list[str]:
    """List the files below a folder, sorted; with a pattern, only the files that match it.

    `*` matches within one folder, `**` any number of folders. Hidden files need a dot in the pattern.
    """
    files, name = locate(path)
    try:
        listed = files.get_file_info(fs.FileSelector(name, recursive=True))
    except OSError as error:
        raise ValueError(f"{path} cannot be listed: {one_line(error)}") from error
    below = [each.path[len(name) :].lstrip("/") for each in listed if each.type == fs.FileType.File]
    found = sorted(f"{path.rstrip('/')}/{each}" for each in below)
    fits = re.compile(_expression(pattern)) if pattern else None
    return [each for each in found if fits is None or fits.fullmatch(each)]


def expand(pattern: str) -> list[str]:
    """List the files that a glob matches, sorted.

    >>> expand("/nowhere/*.jpg")
    []
    """
    parts = pattern.split("/")
    first = next(index for index, part in enumerate(parts) if _GLOB.search(part))
    folder = "/".join(parts[:first]) or "/"
    return walk(folder, pattern=pattern) if kind(folder) == "folder" else []


def _expression(pattern: str) -> str:
    """Translate a glob to a regular expression."""
    parts = []
    for part in pattern.split("/"):
        if part == "**":
            parts.append(r"(?:[^/.][^/]*/)*")
        else:
            hidden = "" if part.startswith(".") else r"(?!\.)"
            parts.append(hidden + fnmatch.translate(part).removesuffix(r"\Z").replace(".*", "[^/]*") + "/")
    return "".join(parts).removesuffix("/")


def read_image(path: str) -> bytes:
    """Read the bytes of an image; `UnusableImage` if the file is missing, not readable or too large."""
    if "://" not in path:
        return read_bytes(path)
    try:
        files, name = locate(path)
        with files.open_input_stream(name) as stream:
            data: bytes = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UnusableImage("no such file") from None
    # Catch everything: each provider raises its own errors, and no file may stop a run.
    except Exception as error:
        raise UnusableImage(f"not readable ({one_line(error)})") from None
    if len(data) > MAX_BYTES:
        raise UnusableImage(f"a file of more than {MAX_BYTES:,} bytes, which is the most that is allowed")
    return data


def read(path: str) -> bytes | None:
    """Read a small file; None if it does not exist."""
    files, name = locate(path)
    try:
        with files.open_input_stream(name) as stream:
            return bytes(stream.read())
    except FileNotFoundError:
        return None


def open_file(path: str) -> Any:
    """Open a file for random-access reading."""
    files, name = locate(path)
    return files.open_input_file(name)


def write(path: str, data: bytes) -> None:
    """Write a file atomically, even if the process is killed; an existing file is replaced."""
    files, name = locate(path)
    if not isinstance(files, fs.LocalFileSystem):
        with files.open_output_stream(name) as stream:  # an object appears when its stream is closed
            stream.write(data)
        return
    target = Path(name)
    temporary = target.with_name(f"_{target.name}.{secrets.token_hex(4)}{TEMPORARY}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # before renaming, in case of power failure
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def one_line(error: BaseException) -> str:
    """Return the message of an error on one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
