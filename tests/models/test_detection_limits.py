"""Our models: candidates and detections without limit, none, fewer than none."""

from __future__ import annotations

import pytest
import torch

from retina_ops.models import PostprocessOptions, detections_of, retinanet_small_fpn


def test_any_number_of_detections_of_our_models() -> None:
    """`detections_of` takes None and any number from 0 on."""
    outputs = {"cls_logits": [torch.zeros(1, 5, 3)], "bbox_regression": [torch.zeros(1, 5, 4)]}
    corners = 20.0 * torch.arange(5)[:, None].expand(5, 2)
    anchors = torch.cat([corners, corners + 9], dim=1)
    for detections, topk, count in ((None, 10**30, 15), (10**12, 1000, 15), (None, 4, 4), (2, 1000, 2)):
        options = PostprocessOptions(detections_per_img=detections, topk_candidates=topk)
        (found,) = detections_of(outputs, anchors, [(200, 200)], options)
        assert len(found["scores"]) == count
    with pytest.raises(ValueError, match="detections_per_img must be at least 0, got -1"):
        detections_of(outputs, anchors, [(200, 200)], PostprocessOptions(detections_per_img=-1))
    model = retinanet_small_fpn(num_classes=2, score_thresh=0.0, detections_per_img=10**12)
    (found,) = model.eval()([torch.rand(3, 64, 64)])
    assert 0 < len(found["scores"]) < 10**6
