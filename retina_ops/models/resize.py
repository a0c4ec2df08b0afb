"""torchvision's transform, by the resizing rule of this package."""

from __future__ import annotations

from typing import Any

from ..errors import needs_extra
from ..resizing import RESIZED_BY, resized_size

with needs_extra("models"):
    from torch import Tensor
    from torch.nn.functional import interpolate
    from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes

Target = dict[str, Any]


class Resize(GeneralizedRCNNTransform):
    """torchvision's transform. An image that has the wanted size is not interpolated again, and no side becomes 0."""

    def resize(self, image: Tensor, target: Target | None = None) -> tuple[Tensor, Target | None]:
        """The image and the boxes of its target at the size that torchvision's transform gives them."""
        height, width = image.shape[-2:]
        resized_by = None if target is None else target.pop(RESIZED_BY, None)
        if len(self.min_size) == 1 and self.fixed_size is None:
            if resized_by == (height, width, self.min_size[0], self.max_size):
                return image, target
            wanted = resized_size(height, width, self.min_size[0], self.max_size)
            if wanted == (height, width):
                return image, target
            if 1 in wanted and not (self.training and self._skip_resize):  # torchvision may round this side to 0
                image = interpolate(image[None], wanted, mode="bilinear", align_corners=False)[0]
                if target is not None:
                    target["boxes"] = resize_boxes(target["boxes"], [height, width], list(wanted))
                return image, target
        resized: tuple[Tensor, Target | None] = super().resize(image, target)
        return resized
