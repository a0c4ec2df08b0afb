"""The operators of retina_ops and inputs for them, in the manner of PyTorch's OpInfo. Imports torch alone."""

from .row import FLOATS, Operator, Refused, Sample, Tolerance
from .table import OPERATORS

__all__ = ["FLOATS", "OPERATORS", "Operator", "Refused", "Sample", "Tolerance"]
