"""What memory a compiled program will take and what is free: said before the machine has none left.

XLA knows the size of a program's buffers once it has compiled it; nothing is run to find out.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

CLOSE = 0.8  # share of what is free that is worth a warning
_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def free_memory(device: jax.Device | None = None) -> float | None:
    """Return the memory that may still be taken, in bytes; None where nobody says.

    Args:
      device: whose; None = the CPU's. A GPU's is what JAX may allocate there less what it has allocated.
    """
    if device is not None and device.platform != "cpu":
        stats = device.memory_stats() or {}
        if "bytes_limit" not in stats:
            return None
        return float(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    fields = _numbers(_PROC / "meminfo")
    if "MemAvailable:" not in fields:
        return None
    # Kilobytes. With swap a program is slow, and lives.
    machine = 1024.0 * (fields["MemAvailable:"] + fields.get("SwapFree:", 0))
    return min([machine, *_left_in_cgroups()])


def _left_in_cgroups() -> list[float]:
    """Return what each control group around this process leaves it, in bytes; of both versions."""
    left = []
    try:
        lines = (_PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, limit, used = _CGROUPS, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root, limit, used = _CGROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        folder = root / path.lstrip("/")
        # In a container the path may be the host's, and only the root is there.
        for each in (folder, *folder.parents):
            if not each.is_relative_to(root):
                break
            most, taken = _number(each / limit), _number(each / used)
            if most is not None and taken is not None:
                stat = _numbers(each / "memory.stat")
                # The kernel drops files that it has read before it kills.
                files = stat.get("inactive_file", 0) + stat.get("active_file", 0)
                left.append(float(most - taken + files))
    return left


def _number(path: Path) -> int | None:
    """Return the number that a file holds; None where there is no file, or it says "max"."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _numbers(path: Path) -> dict[str, int]:
    """Return first word -> second word of a file's lines, where that is a number."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdecimal()}


def estimate(compiled: Any) -> float | None:
    """Return what a compiled program takes beyond its arguments while it runs, in bytes a device.

    Its temporary buffer, and the results that do not lie where arguments lay. None where XLA does not say.
    """
    sizes = compiled.memory_analysis()
    if sizes is None:
        return None
    results = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return float(sizes.temp_size_in_bytes + max(results, 0))


def held(tree: Any) -> int:
    """Return the size of the arrays of a tree, in bytes."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree) if hasattr(leaf, "nbytes"))


def check_fits(
    needed: float, free: float | None, *, what: str, ways: str, say: Callable[[str], None]
) -> None:
    """Tell where a program will not fit, or hardly.

    Args:
      needed: by the program, in bytes, beyond what is held already.
      free: as `free_memory`; None = unknown, and nothing is told.
      what: needs the memory.
      ways: out of it.
      say: told one sentence where more than `CLOSE` of what is free is needed.

    Raises:
      ValueError: more is needed than is free; the message has both figures and the ways out.
    """
    if free is None or needed <= CLOSE * free:
        return
    figures = f"{what} needs {needed / 2**30:.1f} GiB of memory, and {max(free, 0) / 2**30:.1f} GiB are free"
    if needed > free:
        raise ValueError(f"{figures}: {ways}")
    say(f"memory: {figures}, which is close; if it is stopped, {ways}")


def check_program(
    program: Any,
    state: Any,
    epochs: jax.Array,
    *,
    what: str,
    smaller: Sequence[str],
    say: Callable[[str], None],
) -> float:
    """Compile a training's program, and tell where this machine cannot hold what it needs, as `check_fits`.

    The call that follows finds it compiled.

    Args:
      program: of the training, as `mim_jax.train.epochs.Program`.
      state: to be trained.
      epochs: to run.
      what: is trained.
      smaller: the options that make it need less.
      say: as `check_fits`.

    Returns:
      What it takes beyond its arguments, as `estimate`; 0 where nobody says.

    Raises:
      ValueError: as `check_fits`.
    """
    needed = estimate(program.lower(state, epochs).compile())
    if needed is None:
        return 0.0
    device = next(iter(epochs.devices()))
    # A checkpoint, and a state that is set aside for one, are copies.
    copies = held(state) if device.platform == "cpu" else 0
    elsewhere = "a GPU" if device.platform == "cpu" else "a larger GPU or several (--config.training.shards)"
    fields = [f"--config.{name}" for name in smaller]
    ways = f"lower {', '.join(fields[:-1])} or {fields[-1]} in a new --workdir, or use {elsewhere}"
    check_fits(needed + copies, free_memory(device), what=what, ways=ways, say=say)
    return needed
