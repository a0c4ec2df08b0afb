"""The fused loss and post-processing in a torchvision RetinaNet: two more lines in an existing training script."""

import torch
from torchvision.models.detection import retinanet_resnet50_fpn

from retina_ops import patch_torchvision, unpatch_torchvision

torch.manual_seed(0)
model = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3, min_size=96, max_size=128)
print(patch_torchvision(model))  # what was replaced, and what was not replaced and why

optimizer = torch.optim.SGD(model.parameters(), lr=0.002, momentum=0.9)
images = [torch.rand(3, 96, 128), torch.rand(3, 96, 96)]
targets = [
    {"boxes": torch.tensor([[10.0, 10, 60, 70], [50, 20, 120, 90]]), "labels": torch.tensor([0, 2])},
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},  # no objects
]
for step in range(1, 4):
    losses = model(images, targets)  # torchvision's interface, as before
    sum(losses.values()).backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step}: " + "  ".join(f"{name} {loss.item():.3f}" for name, loss in losses.items()))

model.eval()
with torch.inference_mode():
    print(f"{[len(found['boxes']) for found in model(images)]} detections")

print(unpatch_torchvision(model))  # torchvision's own code again, with the weights trained
