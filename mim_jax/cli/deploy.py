"""The modes of launch.py that deploy a trained detector: export, export_app, serve.

Each returns the exit status and imports what it needs itself, so that mistakes are reported at once.
"""

import functools
import shutil
import sys
from pathlib import Path

from mim_jax.cli.runtime import say
from mim_jax.train.settings import Settings


def export(workdir: str) -> int:
    """Write `exported/` into the workdir: the detector as one folder, loadable without its network's code."""
    from mim_jax.deploy.export import export as write
    from mim_jax.detector import load_workdir

    root = Path(workdir).expanduser().resolve()
    path = root / "exported"
    digest = write(load_workdir(workdir), path)
    if (root / "model_card.md").exists():
        # Not hashed, because people may edit it.
        shutil.copyfile(root / "model_card.md", path / "README.md")
    say(f"export: {path}\ndigest: {digest}")
    return 0


def export_app(workdir: str, *, fold: int) -> int:
    """Write `app/` into the workdir: the page that scores on a phone with the network of one fold."""
    try:
        from mim_jax.deploy.app import bundle
    except ModuleNotFoundError as error:
        raise ValueError(f'--mode=export_app needs {error.name}: pip install "mim-jax[app]"') from None
    for line in bundle.export_run(workdir, fold=fold):
        say(line)
    return 0


def serve(settings: Settings, workdir: str, *, app: str | None, host: str, port: int) -> int:
    """Serve the detector of a trained workdir, and the app, until interrupted.

    `app` is the folder served at /; None = `workdir/app` if it exists. Port 0 = any free port.
    """
    try:
        from mim_jax.deploy.server import serving
    except ModuleNotFoundError as error:
        raise ValueError(
            f'--mode=serve needs the package {error.name}: install the [app] extra, pip install ".[app]"'
        ) from None
    from mim_jax.decide.thresholds import Rule
    from mim_jax.detector import load_workdir

    detector = load_workdir(workdir)
    wanted = settings.mim.rule.miss_rate if settings.mim else Rule().miss_rate
    own = Path(workdir).expanduser().resolve() / "app"
    serving.serve(
        detector,
        alpha=detector.calibration.miss_rate if detector.calibration else wanted,
        gate=settings.data.gate,
        folder=Path(app).expanduser() if app else own if own.is_dir() else None,
        host=host,
        port=port,
        tell=functools.partial(say, stream=sys.stderr),
    )
    return 0
