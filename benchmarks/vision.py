"""Import of torchvision, whose classifiers are the reference for numbers and speed."""

from typing import Any


def import_torchvision() -> Any:
    """Import torchvision with its networks, together with any build of PyTorch.

    A CUDA build of torchvision with a CPU build of PyTorch lacks its compiled operations, and its import
    fails at two whose shapes it registers. The networks need neither: declaring them lets the import succeed.

    Raises:
      ModuleNotFoundError: PyTorch or torchvision is not installed.
    """
    import torch

    try:
        import torchvision
    except RuntimeError:
        for name in ("nms", "qnms"):
            schema = "(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{name}", schema)
        import torchvision
    return torchvision
