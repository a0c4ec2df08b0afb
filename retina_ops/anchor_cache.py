"""Anchors of all levels, computed once for each image size and kept on the device."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_TORCHVISION = "torchvision.models.detection.anchor_utils"
_Key = tuple[object, ...]


class AnchorCache:
    """Keeps the anchors of the last ``capacity`` image sizes on their device.

    The cache serves torchvision's ``AnchorGenerator`` and subclasses that do not override ``forward``,
    ``grid_anchors`` or ``set_cell_anchors``. Any other generator is called each time. Anchors are float64 for float64
    features and float32 otherwise, also under ``torch.autocast``, because half precision would round them. The
    generator is not changed.

    The cache may be used from several threads. Under ``torch.compile`` and ``torch.export``, and for tensor subclasses,
    the anchors are computed in the graph, which costs a few additions. A CUDA graph can be captured only at an image
    size that was seen before; the cache then keeps these anchors as long as it exists.

    Args:
        capacity: number of image sizes; an entry takes 16 bytes per anchor in float32.
    """

    def __init__(self, capacity: int = 16) -> None:
        self.capacity = capacity
        # An entry also holds the generator's cell anchors: while they exist, no other tensor can have their id().
        self._anchors: OrderedDict[_Key, tuple[Tensor, list[Tensor]]] = OrderedDict()
        self._captured: dict[_Key, Tensor] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._anchors)

    def __deepcopy__(self, memo: dict[int, object]) -> AnchorCache:
        return AnchorCache(self.capacity)

    def __getstate__(self) -> dict[str, int]:
        return {"capacity": self.capacity}

    def __setstate__(self, state: dict[str, int]) -> None:
        self.__init__(state["capacity"])  # type: ignore[misc]

    def get(self, generator: Any, image_size: tuple[int, int], features: Sequence[Tensor]) -> Tensor:
        """The anchors of all levels.

        Args:
            generator: torchvision's ``AnchorGenerator``.
            image_size: (height, width) of the padded images, pixels.
            features: the feature map of each level, ``[B, C, H, W]``; only sizes, dtype and device are used.

        Returns:
            ``[A, 4]`` (x1, y1, x2, y2) in pixels, ordered by level, row, column and position in the cell.

        Raises:
            ValueError: the generator and ``features`` have different numbers of levels.
            RuntimeError: a CUDA graph is being captured at an image size that was not seen before.
        """
        if not has_torchvision_grid(generator):
            return _called(generator, image_size, features)
        cells = generator.cell_anchors
        if len(cells) != len(features):
            raise ValueError(f"the anchor generator has {len(cells)} levels, the features {len(features)}")
        dtype = torch.float64 if features[0].dtype == torch.float64 else torch.float32
        device = features[0].device
        grids = [(level.shape[-2], level.shape[-1]) for level in features]
        if torch.compiler.is_compiling() or type(features[0]) is not Tensor:
            return grid_anchors(cells, grids, image_size, dtype, device)
        identity = tuple((id(cell), 0 if cell.is_inference() else cell._version) for cell in cells)
        return self._kept((*grids, image_size, dtype, device, identity), cells, grids, image_size, dtype, device)

    def _kept(
        self,
        key: _Key,
        cells: list[Tensor],
        grids: list[tuple[int, int]],
        image_size: tuple[int, int],
        dtype: torch.dtype,
        device: torch.device,
    ) -> Tensor:
        is_capturing = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
        with self._lock:
            if key in self._anchors:
                self._anchors.move_to_end(key)
                anchors = self._anchors[key][0]
                if is_capturing:
                    self._captured[key] = anchors  # the graph may read them after they were dropped from the cache
                elif device.type == "cuda":
                    anchors.record_stream(torch.cuda.current_stream(device))
                return anchors
            if is_capturing:
                raise RuntimeError(
                    f"run the model once at image size {tuple(image_size)} before capturing a CUDA graph"
                )
            with torch.inference_mode(False):  # anchors computed for a prediction are used in training too
                anchors = grid_anchors(cells, grids, image_size, dtype, device)
            if device.type == "cuda":
                torch.cuda.current_stream(device).synchronize()  # other threads may read them on other streams
            self._anchors[key] = (anchors, list(cells))
            while len(self._anchors) > self.capacity:
                self._anchors.popitem(last=False)
            return anchors


def grid_anchors(
    cell_anchors: Sequence[Tensor],
    grids: Sequence[tuple[int, int]],
    image_size: tuple[int, int],
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """``[A, 4]``: torchvision's ``AnchorGenerator.forward`` for one image.

    Args:
        cell_anchors: for each level ``[a, 4]``, in pixels relative to the cell's corner.
        grids: (rows, columns) of each level.
        image_size: (height, width) of the padded images, in pixels; the stride of a level is image size / grid size.
        dtype, device: of the result.
    """
    levels = []
    for cells, (rows, columns) in zip(cell_anchors, grids, strict=True):
        y = torch.arange(rows, device=device) * (image_size[0] // rows)
        x = torch.arange(columns, device=device) * (image_size[1] // columns)
        y, x = torch.meshgrid(y, x, indexing="ij")
        corners = torch.stack((x, y, x, y), dim=-1).reshape(-1, 1, 4)
        levels.append((corners + cells.to(device, dtype)).reshape(-1, 4))
    return torch.cat(levels)


def has_torchvision_grid(generator: Any) -> bool:
    """Whether the generator computes the same anchors as `grid_anchors`."""
    cls = type(generator)
    return all(
        getattr(getattr(cls, name, None), "__module__", "") == _TORCHVISION
        for name in ("forward", "grid_anchors", "set_cell_anchors")
    )


def _called(generator: Any, image_size: tuple[int, int], features: Sequence[Tensor]) -> Tensor:
    """The anchors that the generator itself computes for one image."""
    from torchvision.models.detection.image_list import ImageList

    device = features[0].device
    dtype = torch.float64 if features[0].dtype == torch.float64 else torch.float32
    image = ImageList(torch.empty(1, 1, *image_size, dtype=dtype, device=device), [image_size])
    anchors: Tensor = generator(image, [level.new_empty(1, 1, *level.shape[-2:], dtype=dtype) for level in features])[0]
    return anchors
