"""The mode that scores many files: reads a folder, glob or table; writes Parquet, a summary and a plot."""

import contextlib
import functools
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mim_jax.cli.console import say
from mim_jax.cli.runtime import prepare
from mim_jax.decide.decision import Calibration
from mim_jax.deploy.bulk import engines, run, storage, summary
from mim_jax.deploy.bulk import output as outputs
from mim_jax.train import workdir as folders
from mim_jax.train.config import read_gate
from mim_jax.train.metric_writer import progress_bar


def check(*, address: str | None = None, actors: int | None = None, **others: str | None) -> bool:
    """Whether to score with Ray; ValueError if a flag is missing or flags are incompatible."""
    for name in ("input", "detector", "output"):
        if not others.get(name):
            raise ValueError(
                f"--mode=bulk needs --{name}: --mode=bulk --input=PHOTOS --detector=EXPORT_OR_RUN "
                "--output=FOLDER"
            )
    if not address:
        return engines.has_ray() and actors != 0
    if actors == 0:
        raise ValueError("--actors=0 scores in this process: leave out --address or --actors")
    if not engines.has_ray():
        raise ValueError('--address needs Ray: pip install "mim-jax[ray]", or leave out --address')
    return True


def bulk(
    config: Mapping[str, Any],
    *,
    input: str,
    detector: str,
    output: str,
    on_ray: bool,
    device: str,
    digest: str | None = None,
    column: str | None = None,
    address: str | None = None,
    actors: int | None = None,
) -> int:
    """Score everything in `input`, resuming a stopped run, and write a summary.

    Arguments are the flags of the same names; `on_ray` is the result of `check`.
    """
    tell = functools.partial(say, stream=sys.stderr)
    root, detector = storage.absolute(output), str(Path(detector).expanduser().absolute())
    try:
        outputs.make_folder(root)
    except OSError as error:
        raise ValueError(f"--output={root} cannot be made: {storage.one_line(error)}") from error
    with contextlib.nullcontext() if "://" in root else folders.hold(Path(root), "--output"):
        found = run.claim(
            root,
            source=input,
            column=column or "",
            detector=detector,
            digest=digest,
            gate=read_gate(config),
            tell=tell,
        )
        done = found.finished()
        before = sum(len(found.ids(part)) for part in done)
        began, rate, peak = time.perf_counter(), None, 0
        if before == found.count:
            tell("already finished: nothing to score")
        else:
            if done:
                tell(f"resumed: {before:,} of {found.count:,} rows already written")
            with progress_bar("scoring", found.count, initial=before, unit="image") as bar:
                for part in run.score(
                    found,
                    done,
                    detector=detector,
                    on_ray=on_ray,
                    address=address or "",
                    actors=actors,
                    gpus={"cpu": False, "gpu": True}.get(device),
                    prepare=functools.partial(prepare, device, any_thread=True),
                    tell=tell,
                ):
                    bar.update(part.rows)
                    peak = max(peak, part.peak)
            rate = (found.count - before) / (time.perf_counter() - began)
        sum_up(found, rate=rate, peak=peak)
    return 0


def sum_up(found: outputs.Output, *, rate: float | None, peak: int) -> None:
    """Write `_summary.json` and `_drift.png`, and print the summary."""
    where = f"{found.root}/{outputs.SUMMARY}"
    saved = found.about["calibration"]
    calibration = Calibration.from_json(saved) if saved else None
    batch = summary.summarise(found)
    counted = {**batch.counts, "drift": summary.drift(batch, calibration)}
    if rate is None:  # a finished run keeps the measurements of its last start
        counted |= {"last_start": json.loads(storage.read(where) or b"{}").get("last_start")}
    else:
        counted |= {"last_start": {"images_per_second": round(rate, 2), "peak_bytes": peak}}
    storage.write(where, (json.dumps(counted, indent=1) + "\n").encode())
    if calibration and counted["drift"]:
        from mim_jax.report.figures.charts import drift_figure

        figure = drift_figure(
            batch.scores,
            calibration,
            batch.p_values,
            distance=counted["drift"]["distance"],
            bound=counted["drift"]["bound"],
            notice=found.about["notice"],
        )
        storage.write(f"{found.root}/{outputs.DRIFT}", figure)
    for line in summary.sentences(counted):
        say(line)
    if rate is not None:
        say(
            f"rate: {rate:.1f} images/s since this start; peak memory of a scoring process: "
            f"{peak / 2**20:,.0f} MiB"
        )
    say(f"parts, summary and plot: {found.root}")
