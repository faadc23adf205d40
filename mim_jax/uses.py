"""What launch.py does with what is trained: score, export, put on a phone, serve, compare.

Each returns the exit status, and imports what it needs itself: mistakes should not wait for the rest.
"""

import functools
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

UNUSABLE_FILES = 2  # an exit status


def score(config: Mapping[str, Any], workdir: str, paths: Sequence[str]) -> int:
    """Scores files and folders with a trained workdir.

    Prints a table and writes `scored.csv` into the workdir.
    """
    from mim_jax import protocol, scoring
    from mim_jax.detector import Detector

    if not paths:
        raise ValueError(
            "--mode=score needs images or folders after the flags: launch.py --mode=score --workdir=RUN "
            "photo.jpg"
        )
    files = scoring.find_files(paths)
    detector = Detector.load(workdir)
    rows = list(
        tqdm(
            scoring.score_files(detector, files, gate=protocol.make_gate(config)),
            total=len(files),
            desc="scoring",
            unit="image",
            disable=None,
        )
    )
    print(scoring.format_table(rows, detector))
    table = Path(workdir).expanduser().resolve() / "scored.csv"
    try:
        scoring.write_csv(table, rows, folds=len(detector.variables))
    except OSError as error:
        raise ValueError(
            f"{table} cannot be written ({error.strerror}): the table above is whole; the workdir, or a copy "
            "of it, must be writable to keep every metric of every fold"
        ) from error
    print(f"every metric of every fold: {table}")
    return UNUSABLE_FILES if not all(row.usable for row in rows) else 0


def export(config: Mapping[str, Any], workdir: str, paths: Sequence[str]) -> int:
    """Writes `exported/` into the workdir: the detector as one folder that needs JAX and NumPy alone."""
    from mim_jax.deploy.export import export as write
    from mim_jax.detector import Detector

    root = Path(workdir).expanduser().resolve()
    path = root / "exported"
    digest = write(Detector.load(workdir), path)
    if (root / "model_card.md").exists():
        # Not among the hashed files: people may add to it.
        shutil.copyfile(root / "model_card.md", path / "README.md")
    print(f"export: {path}\ndigest: {digest}")
    return 0


def export_app(config: Mapping[str, Any], workdir: str, paths: Sequence[str], *, fold: int) -> int:
    """Writes `app/` into the workdir: the page that scores on a phone, by the network of one fold."""
    try:
        from mim_jax.deploy.app import bundle
    except ModuleNotFoundError as error:
        raise ValueError(f'--mode=export_app needs {error.name}: pip install "mim-jax[app]"') from None
    for line in bundle.export_run(workdir, fold=fold):
        print(line)
    return 0


def compare(config: Mapping[str, Any], workdir: str, paths: Sequence[str]) -> int:
    """Lays finished runs of MIM and of classifiers side by side: `comparison.html` in the workdir."""
    from mim_jax import comparison, comparison_page, stored

    if not paths:
        raise ValueError(
            "--mode=compare needs workdirs of finished runs after the flags: launch.py --mode=compare "
            "--workdir=runs/compared runs/mim runs/resnet50"
        )
    root = Path(workdir).expanduser().resolve()
    if (root / "config.json").exists():
        raise ValueError(f"{root} is the workdir of a run: name another folder for the comparison")
    runs = [stored.read_run(path) for path in paths]
    found = comparison.compare(runs, resamples=config["evaluation"]["resamples"], seed=config["seed"])
    root.mkdir(parents=True, exist_ok=True)
    print(f"comparison: {comparison_page.write_comparison(root, found, runs, name='comparison.html')}")
    return 0


def serve(
    config: Mapping[str, Any], workdir: str, paths: Sequence[str], *, app: str | None, host: str, port: int
) -> int:
    """Serves the scorer of a trained workdir, and the app, until it is interrupted.

    Args:
      config: its section data.gate counts.
      workdir: of the run.
      paths: none.
      app: folder that is served at /; None = `workdir/app` where there is one.
      host: address to answer at.
      port: 0 = any that is free.
    """
    try:
        from mim_jax.deploy.server import serving
    except ModuleNotFoundError as error:
        raise ValueError(
            f'--mode=serve needs the package {error.name}: install the [app] extra, pip install ".[app]"'
        ) from None
    from mim_jax import protocol
    from mim_jax.detector import Detector

    detector = Detector.load(workdir)
    own = Path(workdir).expanduser().resolve() / "app"
    serving.serve(
        detector,
        alpha=detector.calibration.miss_rate if detector.calibration else config["decision"]["miss_rate"],
        gate=protocol.make_gate(config),
        folder=Path(app).expanduser() if app else own if own.is_dir() else None,
        host=host,
        port=port,
        tell=functools.partial(print, file=sys.stderr, flush=True),
    )
    return 0
