"""A lock on the folder of a run, so that two processes never write the same run."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DataError

_held: set[int] = set()  # file descriptors of this process's locks
_UNSUPPORTED = (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder. The system frees it when the process ends, however it ends.

    It is a lock on the folder itself, so that no file is left. Worker processes do not inherit it. On a file system
    that cannot lock folders there is no lock.

    Raises:
        DataError: another process, or another run of this process, holds the lock.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    _held.add(descriptor)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            reason = "another process trains in this folder: wait for it, or choose another --output"
            raise DataError(folder, reason) from None
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
        yield
    finally:
        _held.discard(descriptor)
        os.close(descriptor)


def _close_in_child() -> None:
    """A forked worker that outlives its parent would keep the lock."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)
