#!/usr/bin/env bash
# Every GPU row of docs/benchmarks.md in one call of at most 8 minutes: a JSON file and a Markdown table.
#
#   benchmarks/on_gpu.sh --output=FOLDER          # on a machine with one NVIDIA GPU
#   benchmarks/on_gpu.sh --output=FOLDER --small  # the same on a CPU, as small as it gets: does it run?
#
# It needs jax, flax, optax, orbax-checkpoint and PyTorch with torchvision, and no installation of this package.
cd "$(dirname "$0")/.." && exec "${PYTHON:-python3}" -m benchmarks.on_gpu "$@"
