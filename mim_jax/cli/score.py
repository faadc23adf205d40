"""The mode that scores files: takes paths, prints a table and writes a CSV file."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mim_jax.cli.console import UNUSABLE_FILES, say
from mim_jax.data.dataset import printable
from mim_jax.decide.novelty_detector import NoveltyDetector
from mim_jax.deploy.bulk.inputs import find_files
from mim_jax.deploy.bulk.rows import ScoredFile, score_files
from mim_jax.detector import load_workdir
from mim_jax.train import workdir as folders
from mim_jax.train.settings import Settings


def format_table(rows: Sequence[ScoredFile], detector: NoveltyDetector) -> str:
    """Format a table for the terminal: metrics averaged over folds, p-value and decision, then the rule."""
    width = max([len("file"), *(len(printable(row.path)) for row in rows)])
    wide = {name: max(8, len(name)) for name in (*detector.metrics, "p_value")}
    head = [f"{'file':{width}}", *(f"{name:>{size}}" for name, size in wide.items()), "decision"]
    lines = ["  ".join(head)]
    for row in rows:
        name = f"{printable(row.path):{width}}"
        found = row.assessment
        if row.usable:
            values = "  ".join(
                f"{found.similarities[metric]:{wide[metric]}.4f}" for metric in detector.metrics
            )
            p_value = f"{'none':>8}" if found.p_value is None else f"{found.p_value:8.4f}"
            lines.append(f"{name}  {values}  {p_value}  {found.decision}")
        else:
            lines.append(f"{name}  unusable: {' '.join(found.reasons)}")
    calibration = detector.calibration
    if calibration is None:
        lines.append("threshold: none; evaluate the workdir with --mode=evaluate to get one")
    else:
        lines.append(f"rule: {calibration.origin}. {calibration.promise} {calibration.band}")
    if detector.notice:
        lines.append(f"warning: {detector.notice}")
    return "\n".join(lines)


def write_table(path: Path, rows: Sequence[ScoredFile], *, metrics: Sequence[str], folds: int) -> None:
    """Write one row per file: decision, reasons, p-value, mean of each metric, each metric of each fold."""
    names = [(metric, k) for metric in metrics for k in range(folds)]
    header = ["file", "decision", "reason", "p_value", *metrics]
    table: list[list[Any]] = [header + [f"{metric}_fold_{k}" for metric, k in names]]
    for row in rows:
        found = row.assessment
        values: list[float] = []
        if row.usable:
            values = [found.similarities[metric] for metric in metrics]
            values += [row.similarities[metric][k] for metric, k in names]
        table.append([row.path, found.decision, " ".join(found.reasons), found.p_value, *values])
    folders.write_csv(path, table)


def score(settings: Settings, workdir: str, paths: Sequence[str], *, output: str | None = None) -> int:
    """Score files and folders with a trained workdir: write a CSV file, and print a table.

    `output` is the file; None = `scored.csv` in the workdir.
    """
    if not paths:
        raise ValueError(
            "--mode=score needs images or folders after the flags: --mode=score --workdir=RUN photo.jpg"
        )
    table = Path(output or os.path.join(workdir, "scored.csv")).expanduser().resolve()
    if table.suffix.lower() != ".csv" or not table.parent.is_dir():
        raise ValueError(f"--output must be a .csv file in a folder that exists, got {output}")
    files = find_files(paths)
    detector = load_workdir(workdir)
    given = ((path, reason, None) for path, reason in files)
    with ThreadPoolExecutor(1, "decoding") as pool:
        found = score_files(detector, given, gate=settings.data.gate, pool=pool)
        rows = list(tqdm(found, total=len(files), desc="scoring", unit="image", disable=None))
    # Write the file first, so that no trouble with the console loses the work.
    try:
        write_table(table, rows, metrics=detector.metrics, folds=detector.folds)
    except OSError as error:
        raise ValueError(
            f"{table} cannot be written ({error.strerror}): the table above is complete; name another file "
            "with --output=FILE.csv to keep every metric of every fold"
        ) from error
    finally:
        say(format_table(rows, detector))
    say(f"every metric of every fold: {table}")
    return UNUSABLE_FILES if not all(row.usable for row in rows) else 0
