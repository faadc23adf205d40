"""Files by path or URI, on this machine or in a bucket: read one, list them, write one whole or not at all.

`s3://`, `gs://`, `abfs://` and `hdfs://` are pyarrow's file systems, any other scheme is fsspec's. Keys and
regions come from the environment, as those of the provider's own tools do.
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
TEMPORARY = ".tmp"  # the end of the name of a file that is being written


def absolute(path: str) -> str:
    """Spell a path from the root, and leave a URI as it is.

    >>> absolute("s3://bucket/photos/"), absolute("file:///data")
    ('s3://bucket/photos', '/data')
    """
    path = path.removeprefix("file://")
    return path.rstrip("/") if "://" in path else os.path.abspath(os.path.expanduser(path))


def is_pattern(path: str) -> bool:
    """Whether a path is a glob, and not a file that happens to be named so.

    >>> is_pattern("photos/*.jpg"), is_pattern("photos")
    (True, False)
    """
    return bool(_GLOB.search(path)) and not os.path.exists(path)


def locate(path: str) -> tuple[fs.FileSystem, str]:
    """Find the file system of an absolute path or URI, and the file's name there."""
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
            found: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(where)
            return found
        except (OSError, ValueError) as error:
            raise ValueError(f"{where} cannot be reached: {one_line(error)}") from error
    try:
        import fsspec

        return fs.PyFileSystem(fs.FSSpecHandler(fsspec.filesystem(scheme))), authority
    except (ImportError, ValueError) as error:
        raise ValueError(f"{where} needs fsspec and its package for {scheme}: {one_line(error)}") from error


def kind(path: str) -> str:
    """Say whether a path is a "file", a "folder" or "absent"; ValueError where it cannot be asked."""
    files, name = locate(path)
    try:
        found = files.get_file_info(name).type
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {one_line(error)}") from error
    return {fs.FileType.NotFound: "absent", fs.FileType.Directory: "folder"}.get(found, "file")


def walk(path: str, *, pattern: str = "") -> list[str]:
    """List the files below a folder, sorted, or those of them that match a pattern.

    A pattern's `*` stays within one folder and `**` is any number of folders; hidden files need a dot.
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
    """The regular expression of a glob."""
    parts = []
    for part in pattern.split("/"):
        if part == "**":
            parts.append(r"(?:[^/.][^/]*/)*")
        else:
            hidden = "" if part.startswith(".") else r"(?!\.)"
            parts.append(hidden + fnmatch.translate(part).removesuffix(r"\Z").replace(".*", "[^/]*") + "/")
    return "".join(parts).removesuffix("/")


def read_image(path: str, *, max_bytes: int = MAX_BYTES) -> bytes:
    """Read the bytes of an image; `UnusableImage` where the file is gone, refused or too large."""
    if "://" not in path:
        return read_bytes(path, max_bytes=max_bytes)
    try:
        files, name = locate(path)
        with files.open_input_stream(name) as stream:
            data: bytes = stream.read(max_bytes + 1)
    except FileNotFoundError:
        raise UnusableImage("no such file") from None
    # The fence: each provider has errors of its own, and no file may stop a run.
    except Exception as error:
        raise UnusableImage(f"not readable ({one_line(error)})") from None
    if len(data) > max_bytes:
        raise UnusableImage(f"a file of more than {max_bytes:,} bytes, which is the most that is allowed")
    return data


def read(path: str) -> bytes | None:
    """Read a small file; None where there is none."""
    files, name = locate(path)
    try:
        with files.open_input_stream(name) as stream:
            return bytes(stream.read())
    except FileNotFoundError:
        return None


def open_file(path: str) -> Any:
    """Open a file for reading at any place of it."""
    files, name = locate(path)
    return files.open_input_file(name)


def write(path: str, data: bytes) -> None:
    """Write a file whole or not at all, whatever is killed meanwhile; one that is there is replaced."""
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
            os.fsync(file.fileno())  # before its name is: power may fail
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def one_line(error: BaseException) -> str:
    """The words of an error on one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
