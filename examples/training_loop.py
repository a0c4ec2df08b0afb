"""RetinaNet in a training loop that you write: torchvision's interface, any optimizer."""

import sys

import torch
from torch.utils.data import DataLoader

from retina_ops.data import collate
from retina_ops.data.digits import DigitScenes
from retina_ops.evaluation import CocoEvaluator
from retina_ops.models import retinanet_small_fpn

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 200
torch.manual_seed(0)
scenes = DigitScenes("train", length=8 * steps)
model = retinanet_small_fpn(num_classes=10, categories=scenes.categories, min_size=256, max_size=256)
model = model.to(memory_format=torch.channels_last)
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)

for step, (images, targets) in enumerate(DataLoader(scenes, batch_size=8, collate_fn=collate), start=1):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(images, targets)  # {"classification": ..., "bbox_regression": ...}
    sum(losses.values()).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
    optimizer.step()
    optimizer.zero_grad()
    if step % 20 == 0 or step == steps:
        print(f"step {step}: " + "  ".join(f"{name} {loss.item():.3f}" for name, loss in losses.items()))

unseen = DigitScenes("val", length=50)
evaluator = CocoEvaluator(unseen)
model.eval()
with torch.inference_mode():
    for image, target in (unseen[index] for index in range(len(unseen))):
        evaluator.update([target], model([image]))
print(f"AP50 on unseen digits: {evaluator.compute()['AP50']:.3f}")
