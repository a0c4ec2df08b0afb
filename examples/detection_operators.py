"""Training targets from boxes, and detections from scores, without a model."""

import torch

from retina_ops import batched_nms, decode_boxes, encode_boxes, match_anchors

torch.manual_seed(0)
# Anchors of 32 pixels on a grid of 8 pixels, and two objects.
centres = torch.cartesian_prod(torch.arange(4, 256, 8.0), torch.arange(4, 256, 8.0)).flip(1)
anchors = torch.cat([centres - 16, centres + 16], dim=1)
objects = torch.tensor([[40.0, 40.0, 80.0, 70.0], [150.0, 160.0, 180.0, 200.0]])

matches = match_anchors(anchors, objects, fg_iou_thresh=0.5, bg_iou_thresh=0.4)
positive = matches >= 0
print(f"{len(anchors)} anchors: {int(positive.sum())} positive, {int((matches == -2).sum())} ignored")

# The regression targets of the positive anchors; decoding them gives the objects again.
deltas = encode_boxes(objects[matches[positive]], anchors[positive])
boxes = decode_boxes(deltas, anchors[positive], image_size=(256, 256))
assert torch.allclose(boxes, objects[matches[positive]], atol=1e-3)

# A detector finds each object many times; NMS keeps the best detection per class.
found = boxes + torch.randn_like(boxes)
scores, labels = torch.rand(len(found)), matches[positive]
keep = batched_nms(found, scores, labels, iou_threshold=0.5)
print(f"{len(found)} candidates, {len(keep)} detections")
for index in keep.tolist():
    print(f"class {labels[index]}  score {scores[index]:.2f}  {[round(x) for x in found[index].tolist()]}")
