"""The focal loss by itself: class indices instead of a one-hot matrix, ignored anchors, half precision."""

import torch

from retina_ops import sigmoid_focal_loss

torch.manual_seed(0)
anchors, classes = 20_000, 80
logits = torch.full((anchors, classes), -4.6, requires_grad=True)  # the paper's initialisation: every score is 0.01
labels = torch.full((anchors,), classes)  # background
labels[:50] = torch.randint(0, classes, (50,))  # objects
labels[50:100] = -1  # between the thresholds: no loss, no gradient

loss = sigmoid_focal_loss(logits, labels, alpha=0.25, gamma=2.0, reduction="sum") / 50
loss.backward()
assert logits.grad is not None and not logits.grad[50:100].any()
print(f"loss {loss.item():.4f}, {(logits.grad[:50] < 0).sum().item()} logits of the objects' classes are pushed up")

half = sigmoid_focal_loss(logits.bfloat16(), labels, reduction="sum") / 50
print(f"from bfloat16 logits {half.item():.4f}, returned as {half.dtype}")
