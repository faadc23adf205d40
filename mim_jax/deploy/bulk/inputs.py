"""Inputs to score: a folder, a glob, one file, or a table with a column of paths or image bytes.

The list is made once, at the first start of a run, and stored in its output folder. The position in the list
is the row's id, so a path that is given twice is scored twice.
"""

import bisect
import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from mim_jax.data.folder import is_image, list_images
from mim_jax.deploy.bulk import storage

TABLES = (".parquet", ".pq", ".csv")
COLUMN = "path"  # default column of a table
READ_AT_ONCE = 32  # rows read at a time from a table of image bytes
_SCHEMA = pa.schema([("path", pa.binary()), ("reason", pa.string())])

Item = tuple[str, str]  # path, and the reason why it cannot be read, or ""


@dataclass(frozen=True)
class Inputs:
    """A list of inputs in a fixed order."""

    source: str  # absolute path or URI that the list was made from
    column: str  # column with the image bytes, if tables hold the images; "" = the paths are paths of files
    items: pa.Table  # `path`, as bytes of the file system, and `reason`, why it cannot be read; row = id

    def __len__(self) -> int:
        return int(self.items.num_rows)

    def part(self, ids: range) -> list[Item]:
        """Return the inputs with these ids."""
        rows = self.items.slice(ids.start, len(ids))
        paths = [path.decode("utf-8", "surrogateescape") for path in rows["path"].to_pylist()]
        return list(zip(paths, rows["reason"].to_pylist(), strict=True))

    @property
    def digest(self) -> str:
        """SHA-256 of the paths in the list, not of the files' content."""
        found = hashlib.sha256()
        for batch in self.items.to_batches(max_chunksize=10_000):
            for path in batch["path"].to_pylist():
                found.update(b"%d:%b" % (len(path), path))
        return found.hexdigest()


def find_files(paths: Sequence[str]) -> list[Item]:
    """List files, and the images in folders: (path, reason why it cannot be read, or "")."""
    files: list[Item] = []
    for path in paths:
        if os.path.isdir(path):
            listing = list_images(path)
            found = [(os.path.join(path, name), "") for name in listing.names]
            found += [(os.path.join(path, name), reason) for name, reason in listing.refused]
            files += sorted(found) or [(path, f"the folder holds no images{listing.note()}")]
        else:
            files.append((path, ""))
    return files


def find_inputs(source: str, column: str = "") -> Inputs:
    """List the inputs in a folder, glob, file or table.

    Args:
      source: path or URI. A folder is searched for images, as by `--mode=score`; if it has none, for tables.
      column: column of a table; "" = `path`. Parquet columns of bytes, or of images in the format of Hugging
        Face, hold the images themselves.

    Raises:
      ValueError: there is nothing to score, it cannot be read, or the column does not exist.
    """
    source = storage.absolute(source)
    if storage.is_pattern(source):
        found = storage.expand(source)
        if not found:
            raise ValueError(f"--input={source} matches no file: check the pattern; ** matches any folders")
        return _of_files(source, [(path, "") for path in found], column)
    match storage.kind(source):
        case "absent":
            raise ValueError(
                f"--input={source} does not exist: name a folder, a glob, or a Parquet or CSV file"
            )
        case "file":
            return _of_files(source, [(source, "")], column)
    local = "://" not in source
    files = find_files([source]) if local else [(path, "") for path in storage.walk(source) if is_image(path)]
    if not files or files[0][0] == source:
        tables = [path for path in storage.walk(source) if path.lower().endswith(TABLES)]
        if not tables:
            why = files[0][1] if files else "it holds no images"
            raise ValueError(f"--input={source} has nothing to score: {why}")
        files = [(path, "") for path in tables]
    return _of_files(source, files, column)


def _of_files(source: str, files: Sequence[Item], column: str) -> Inputs:
    """Make inputs from files, which may all be tables."""
    if not all(path.lower().endswith(TABLES) for path, _ in files):
        if column:
            raise ValueError(f"--column={column} needs a table, but --input={source} is not one: omit it")
        return Inputs(source, "", _table(files))
    column = column or COLUMN
    tables = [_read_table(path, column) for path, _ in files]
    rows = [row for found, _ in tables for row in found]
    held = {inside for _, inside in tables}
    if len(held) != 1:
        raise ValueError(f"--input={source}: the column {column} holds bytes in some files only")
    if not rows:
        raise ValueError(f"--input={source} has no rows")
    return Inputs(source, column if True in held else "", _table(rows))


def _read_table(path: str, column: str) -> tuple[list[Item], bool]:
    """Read the rows of a table, and whether it holds the images themselves, which are not read yet."""
    try:
        with storage.open_file(path) as file:
            if path.lower().endswith(".csv"):
                names = pyarrow.csv.open_csv(file).schema.names
                if column not in names:
                    raise KeyError(", ".join(names))
                file.seek(0)
                how = pyarrow.csv.ConvertOptions(
                    include_columns=[column], column_types={column: pa.string()}, strings_can_be_null=True
                )
                found = pyarrow.csv.read_csv(file, convert_options=how)[column]
            else:
                table = pq.ParquetFile(file)
                schema = table.schema_arrow
                if column not in schema.names:
                    raise KeyError(", ".join(schema.names))
                if _holds_bytes(schema.field(column).type):
                    return [(f"{path}#{row}", "") for row in range(table.metadata.num_rows)], True
                found = table.read(columns=[column])[column].cast(pa.string())
    except KeyError as error:
        raise ValueError(
            f"{path} has no column {column!r}, it has {error.args[0]}: name one with --column=NAME"
        ) from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a table: {storage.one_line(error)}") from None
    folder = path.rpartition("/")[0]
    return [_row(folder, path, number, name) for number, name in enumerate(found.to_pylist())], False


def _row(folder: str, table: str, number: int, name: str | None) -> Item:
    """Resolve a path in a table; relative paths are relative to the table's folder."""
    if not name:
        return f"{table}#{number}", "the table names no file in this row"
    return (name if "://" in name or name.startswith("/") else f"{folder}/{name}"), ""


def _holds_bytes(type_: pa.DataType) -> bool:
    if pa.types.is_struct(type_):
        return type_.get_field_index("bytes") >= 0
    return bool(pa.types.is_binary(type_) or pa.types.is_large_binary(type_))


def _table(items: Sequence[Item]) -> pa.Table:
    return pa.table([[_spelled(path) for path, _ in items], [reason for _, reason in items]], schema=_SCHEMA)


def pack(inputs: Inputs) -> bytes:
    """Serialize the list as a Parquet file."""
    sink = pa.BufferOutputStream()
    about = {b"source": _spelled(inputs.source), b"column": inputs.column.encode()}
    pq.write_table(inputs.items.replace_schema_metadata(about), sink, compression="zstd")
    return bytes(sink.getvalue())


def unpack(data: bytes) -> Inputs:
    """Invert `pack`."""
    items = pq.read_table(pa.BufferReader(data))
    about = items.schema.metadata
    source, column = about[b"source"].decode("utf-8", "surrogateescape"), about[b"column"].decode()
    return Inputs(source, column, items.cast(_SCHEMA))


def with_bytes(items: Sequence[Item], column: str) -> Iterator[tuple[str, str, bytes | None]]:
    """Yield (path, reason, bytes) for rows of tables, in order, with only a few in memory."""
    rows: Iterator[bytes | None] = iter(())
    before: tuple[str, int] | None = None
    for path, reason in items:
        if reason:
            yield path, reason, None
            continue
        table, _, number = path.rpartition("#")
        try:
            if before != (table, int(number) - 1):
                rows = _bytes_of(table, column, int(number))
            before = (table, int(number))
            data = next(rows)
            yield (path, "", data) if data is not None else (path, "the table has no bytes in this row", None)
        # Catch everything: a missing or damaged table becomes the reason of each of its rows.
        except Exception as error:
            before = None
            yield path, f"not readable ({storage.one_line(error)})", None


def _bytes_of(path: str, column: str, start: int) -> Iterator[bytes | None]:
    """Yield the bytes in a column, from row `start` on."""
    with storage.open_file(path) as file:
        table = pq.ParquetFile(file, pre_buffer=False)  # pre-buffering would hold whole row groups
        about = table.metadata
        counts = [about.row_group(group).num_rows for group in range(about.num_row_groups)]
        first = bisect.bisect_right(list(itertools.accumulate(counts)), start)  # group that holds the row
        groups = list(range(first, len(counts)))
        batches = table.iter_batches(batch_size=READ_AT_ONCE, row_groups=groups, columns=[column])
        values = (value for batch in batches for value in batch.column(0))
        for value in itertools.islice(values, start - sum(counts[:first]), None):
            found = value.as_py()
            yield found["bytes"] if isinstance(found, dict) else found


def _spelled(path: str) -> bytes:
    """Encode a path as the file system does; file names need not be UTF-8."""
    return path.encode("utf-8", "surrogateescape")
