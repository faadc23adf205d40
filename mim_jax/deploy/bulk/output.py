"""The output folder: parts of Parquet that are written whole or not at all, and what they are parts of.

part-00000042.parquet   the rows of a fixed slice of the list of inputs
_run.json               detector, inputs, gate, versions: written once, before anything is scored
_inputs.parquet         the list of inputs as it was then
_summary.json, _drift.png

A part that is there under its name is finished: that is all there is to resuming. So it does not matter which
process wrote it, nor what was killed. Readers of Parquet pass over names that begin with "_".
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
ROWS = 500  # of a part: what a kill costs at most, for each part under way
_PART = re.compile(r"part-(\d{8})\.parquet")
_LOOKS = 16  # parts whose ends are read at a time


@dataclass(frozen=True)
class Output:
    """A folder that belongs to one run.

    Attributes:
      root: a path or URI.
      about: what is scored by what, in plain values, as `_run.json` has it.
    """

    root: str
    about: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What every part carries: SHA-256 of `about`."""
        return hashlib.sha256(json.dumps(self.about, sort_keys=True).encode()).hexdigest()

    @property
    def count(self) -> int:
        """Number of rows of the finished run."""
        return int(self.about["inputs"]["count"])

    @property
    def parts(self) -> range:
        return range(-(-self.count // self.about["rows"]))

    def ids(self, part: int) -> range:
        """The ids of a part's rows."""
        rows = self.about["rows"]
        return range(part * rows, min((part + 1) * rows, self.count))

    def path(self, part: int) -> str:
        return f"{self.root}/part-{part:08d}.parquet"

    def write(self, part: int, table: pa.Table) -> None:
        """Write a part; whoever writes it again writes the same."""
        sink = pa.BufferOutputStream()
        marked = table.replace_schema_metadata({b"mim_jax.run": self.name.encode()})
        pq.write_table(marked, sink, compression="zstd", write_page_checksum=True)
        storage.write(self.path(part), bytes(sink.getvalue()))

    def finished(self) -> set[int]:
        """The parts that are there, whole and of this run."""
        there = [part for part in _parts(self.root) if part in self.parts]
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
        """Yield the named columns, or all, of every part in order; ValueError where one is damaged."""
        for part in self.parts:
            try:
                with storage.open_file(self.path(part)) as file:
                    yield pq.ParquetFile(file, page_checksum_verification=True).read(
                        columns=list(columns) or None
                    )
            except (OSError, ValueError) as error:
                raise ValueError(
                    f"{self.path(part)} is damaged ({storage.one_line(error)}): remove it, and start the "
                    "same command again"
                ) from error


def find(root: str) -> Output | None:
    """The run that a folder belongs to; None where it is new or empty.

    Raises:
      ValueError: it holds something else, or a run of another format.
    """
    text = storage.read(f"{root}/{RUN}")
    if text is None:
        # Names of ours may be there from a start that was killed before it had written this one.
        if there := [name for name in _names(root) if not name.startswith("_")]:
            raise ValueError(
                f"--output={root} holds {there[0]!r:.60} and no {RUN}: name a new or empty folder"
            )
        return None
    try:
        about = json.loads(text)
        known = about["format"] == FORMAT
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{root}/{RUN} is damaged: score into another folder with --output") from error
    if not known:
        raise ValueError(f"{root} has format {about['format']!r:.20}, and this mim_jax writes {FORMAT}")
    return Output(root, about)


def begin(root: str, about: Mapping[str, Any], given: Inputs) -> Output:
    """Make a folder the output of a run."""
    storage.write(f"{root}/{LIST}", inputs.pack(given))
    found = Output(root, about)
    storage.write(f"{root}/{RUN}", (json.dumps(about, indent=1, sort_keys=True) + "\n").encode())
    return found


def inputs_of(output: Output) -> Inputs:
    """The list of inputs that a run began with."""
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
    """Make a folder where there is none; one in a bucket needs no making."""
    files, name = storage.locate(root)
    if isinstance(files, fs.LocalFileSystem | fs.HadoopFileSystem):
        files.create_dir(name, recursive=True)


def clear(root: str) -> None:
    """Remove what a killed process has left half written."""
    files, name = storage.locate(root)
    if isinstance(files, fs.LocalFileSystem):
        for each in _names(root):
            if each.startswith("_") and each.endswith(storage.TEMPORARY):
                files.delete_file(f"{name}/{each}")


def _names(root: str) -> list[str]:
    files, name = storage.locate(root)
    found = files.get_file_info(fs.FileSelector(name, allow_not_found=True))
    return sorted(each.base_name for each in found if not each.base_name.startswith("."))


def _parts(root: str) -> list[int]:
    matched = (_PART.fullmatch(name) for name in _names(root))
    return [int(each[1]) for each in matched if each]
