#!/usr/bin/env bash
# Measure every GPU row of docs/benchmarks.md in one call of at most 8 minutes: a JSON file and a Markdown table.
#
#   benchmarks/on_gpu.sh --output=FOLDER          # on a machine with one NVIDIA GPU
#   benchmarks/on_gpu.sh --output=FOLDER --small  # smoke test on a CPU at the smallest sizes
#
# Requires jax, flax, optax, orbax-checkpoint and PyTorch with torchvision; this package need not be installed.
cd "$(dirname "$0")/.." && exec "${PYTHON:-python3}" -m benchmarks.on_gpu "$@"
