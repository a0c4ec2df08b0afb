"""Every operator in plain PyTorch: the specification, and the baseline of tests and benchmarks."""

from retina_ops.reference.focal_loss import sigmoid_focal_loss

__all__ = ["sigmoid_focal_loss"]
