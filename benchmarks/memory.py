"""Memory of this process as reported by Linux."""

from pathlib import Path


def resident(field: str) -> float:
    """Bytes of memory of this process: "VmRSS" = resident now, "VmHWM" = peak; 0 if not on Linux."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return 1024.0 * sum(int(line.split()[1]) for line in lines if line.startswith(field + ":"))
