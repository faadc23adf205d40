"""Run on disks that fill up, are read-only or vanish: is there one clear error, and is nothing lost?

python -m tests.stress.disks

The run of `tests.stress.kills` is started on in-memory disks (tmpfs: Linux, as root), each of which holds a
different share of what the uninterrupted run writes. It must end with status 1 and one sentence that names a
way out. The disk is then enlarged and the run started again: its results.json must equal the uninterrupted
run's. The same must hold after a read-only disk, and for a new start after the run's folder was removed while
it was running.
"""

import argparse
import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.launching import has_ended
from tests.stress.kills import begin, results

SHARES = (0.02, 0.2, 0.4, 0.6, 0.8, 0.95)


@contextlib.contextmanager
def disk(folder: Path, size: int) -> Iterator[Path]:
    """Create `folder` and mount a tmpfs of `size` bytes on it."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def remount(folder: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", folder], check=True)


def refused(process: "subprocess.Popen[str]", expected: str) -> str:
    """The last line of a failing run; raise SystemExit if it is not an error that contains `expected`."""
    _, said = process.communicate()
    sentence = said.strip().splitlines()[-1] if said.strip() else ""
    honest = process.returncode == 1 and sentence.startswith("mim_jax: ") and "Traceback" not in said
    if not honest or expected not in sentence:
        raise SystemExit(f"disks: status {process.returncode} without {expected!r}: {said[-3000:]}")
    return sentence


def main(arguments: list[str] | None = None) -> None:
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        root, began = Path(folder), time.perf_counter()
        cache = root / "cache"
        has_ended(begin(root / "uninterrupted", cache))
        expected = results(root / "uninterrupted")

        def tell(fault: str, sentence: str) -> None:
            print(f"{fault}: {sentence.replace(str(root), '')}", flush=True)

        whole = sum(path.stat().st_size for path in (root / "uninterrupted").rglob("*") if path.is_file())
        for number, share in enumerate(SHARES):
            with disk(root / f"disk_{number}", int(share * whole)) as place:
                sentence = refused(begin(place / "run", cache), "free")
                remount(place, f"size={4 * whole}")
                has_ended(begin(place / "run", cache))
                same(place / "run", expected)
            tell(f"full at {share:.0%} of {whole / 2**20:.1f} MiB", sentence)
        with disk(root / "read_only", 4 * whole) as place:
            shutil.copytree(root / "uninterrupted", place / "run")
            (place / "run" / "results.json").unlink()
            remount(place, "ro")
            tell("read-only", refused(begin(place / "run", cache), "--workdir"))
            remount(place, "rw")
            has_ended(begin(place / "run", cache))
            same(place / "run", expected)
        removed = root / "removed"
        for what in ("training", "evaluation"):
            process = begin(removed, cache)
            sign = removed / ("metrics.jsonl" if what == "training" else "fold_0/scores.csv")
            while process.poll() is None and not sign.exists():
                time.sleep(0.001)
            while removed.exists():  # the run may still be creating files
                shutil.rmtree(removed, ignore_errors=True)
            tell(f"removed in {what}", refused(process, "removed"))
            shutil.rmtree(removed, ignore_errors=True)
        has_ended(begin(removed, cache))
        same(removed, expected)
        print(f"disks: {len(SHARES) + 3} faults, lost: 0; {time.perf_counter() - began:.0f} s")


def same(workdir: Path, expected: dict[str, object]) -> None:
    """Raise SystemExit if the results are not those expected."""
    found = results(workdir)
    different = sorted(
        name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)
    )
    if different:
        raise SystemExit(f"disks: {workdir} differs in {', '.join(different)}")


if __name__ == "__main__":
    main()
