"""torchvision, whose classifiers are the reference in numbers and in speed."""

from typing import Any


def import_torchvision() -> Any:
    """torchvision with its networks, beside any build of PyTorch.

    A CUDA build of torchvision beside a CPU build of PyTorch finds none of its compiled operations and stops
    at two whose shapes it registers. Networks need neither: declared, they let it pass.

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
