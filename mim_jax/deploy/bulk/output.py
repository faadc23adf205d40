"""The output folder: Parquet parts, each written atomically, and a description of their run.

part-00000042.parquet   the rows of a fixed slice of the list of inputs
_run.json               detector, inputs, gate, versions: written once, before anything is scored
_inputs.parquet         the list of inputs at that time
_summary.json, _drift.png

A part that exists under its name is finished; resuming needs no other state. So it does not matter which
process wrote it or what was killed. Parquet readers skip names that begin with "_".
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from mim_jax.deploy.bulk import inputs, storage
from mim_jax.deploy.bulk.inputs import Inputs

FORMAT = 1
RUN, LIST, SUMMARY, DRIFT = "_run.json", "_inputs.parquet", "_summary.json", "_drift.png"
ROWS = 500  # per part: the most that a kill costs for each part in progress
_PART = re.compile(r"part-(\d{8})\.parquet")
_LOOKS = 16  # parts whose footers are read concurrently


@dataclass(frozen=True)
class Output:
    """The output folder of one run."""

    root: str  # path or URI of the folder
    about: Mapping[str, Any]  # the inputs, detector and settings in plain values, as in `_run.json`

    @property
    def name(self) -> str:
        """Identifier of the run, stored in every part: SHA-256 of `about`."""
        return hashlib.sha256(json.dumps(self.about, sort_keys=True).encode()).hexdigest()

    @property
    def count(self) -> int:
        """Number of rows of the finished run."""
        return int(self.about["inputs"]["count"])

    @property
    def parts(self) -> range:
        return range(-(-self.count // self.about["rows"]))

    def ids(self, part: int) -> range:
        """Return the ids of a part's rows."""
        rows = self.about["rows"]
        return range(part * rows, min((part + 1) * rows, self.count))

    def path(self, part: int) -> str:
        return f"{self.root}/part-{part:08d}.parquet"

    def write(self, part: int, table: pa.Table) -> None:
        """Write a part; writing it again gives the same rows, except for `seconds`."""
        sink = pa.BufferOutputStream()
        marked = table.replace_schema_metadata({b"mim_jax.run": self.name.encode()})
        pq.write_table(marked, sink, compression="zstd", write_page_checksum=True)
        storage.write(self.path(part), bytes(sink.getvalue()))

    def finished(self) -> set[int]:
        """Return the parts that exist, are complete and belong to this run."""
        matched = filter(None, map(_PART.fullmatch, _names(self.root)))
        there = [int(each[1]) for each in matched if int(each[1]) in self.parts]
        with ThreadPoolExecutor(_LOOKS) as pool:
            whole = pool.map(self._is_whole, there)
            return {part for part, good in zip(there, whole, strict=True) if good}

    def _is_whole(self, part: int) -> bool:
        try:
            with storage.open_file(self.path(part)) as file:
                end = pq.read_metadata(file)
        except (OSError, ValueError):
            return False
        mark = (end.metadata or {}).get(b"mim_jax.run", b"").decode()
        return mark == self.name and end.num_rows == len(self.ids(part))

    def read(self, *columns: str) -> Iterator[pa.Table]:
        """Yield the named columns, or all columns, of every part in order; ValueError if one is damaged."""
        for part in self.parts:
            try:
                with storage.open_file(self.path(part)) as file:
                    yield pq.ParquetFile(file, page_checksum_verification=True).read(
                        columns=list(columns) or None
                    )
            except (OSError, ValueError) as error:
                raise ValueError(
                    f"{self.path(part)} is damaged ({storage.one_line(error)}): remove it, and run the "
                    "same command again"
                ) from error


def find(root: str) -> Output | None:
    """Find the run that a folder belongs to; None if the folder is new or empty.

    ValueError if it holds something else, or a run of another format.
    """
    text = storage.read(f"{root}/{RUN}")
    if text is None:
        # Names with "_" may be left by a start that was killed before it wrote `_run.json`.
        if there := [name for name in _names(root) if not name.startswith("_")]:
            raise ValueError(
                f"--output={root} holds {there[0]!r:.60} but no {RUN}: choose a new or empty folder"
            )
        return None
    try:
        about = json.loads(text)
        known = about["format"] == FORMAT
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{root}/{RUN} is damaged: score into another folder with --output") from error
    if not known:
        raise ValueError(f"{root} has format {about['format']!r:.20}, but this mim_jax writes {FORMAT}")
    return Output(root, about)


def begin(root: str, about: Mapping[str, Any], given: Inputs) -> Output:
    """Set up a folder as the output of a run."""
    storage.write(f"{root}/{LIST}", inputs.pack(given))
    storage.write(f"{root}/{RUN}", (json.dumps(about, indent=1, sort_keys=True) + "\n").encode())
    return Output(root, about)


def inputs_of(output: Output) -> Inputs:
    """Read the list of inputs that a run began with."""
    where = f"{output.root}/{LIST}"
    data = storage.read(where)
    try:
        found = inputs.unpack(data or b"")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{where} is missing or damaged: score into another folder with --output") from error
    if found.digest != output.about["inputs"]["digest"]:
        raise ValueError(f"{where} is not the list that the run began with: score into another folder")
    return found


def make_folder(root: str) -> None:
    """Create a folder if it does not exist; buckets need no folders."""
    files, name = storage.locate(root)
    if isinstance(files, fs.LocalFileSystem | fs.HadoopFileSystem):
        files.create_dir(name, recursive=True)


def clear(root: str) -> None:
    """Remove incomplete files left by a killed process."""
    files, name = storage.locate(root)
    if isinstance(files, fs.LocalFileSystem):
        for each in _names(root):
            if each.startswith("_") and each.endswith(storage.TEMPORARY):
                files.delete_file(f"{name}/{each}")


def _names(root: str) -> list[str]:
    files, name = storage.locate(root)
    found = files.get_file_info(fs.FileSelector(name, allow_not_found=True))
    return sorted(each.base_name for each in found if not each.base_name.startswith("."))
