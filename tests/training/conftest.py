"""One thread for small networks."""

from training.runs import one_thread

__all__ = ["one_thread"]
