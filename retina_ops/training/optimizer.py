"""Optimizers with two parameter groups: weights, and norms and biases without weight decay."""

from __future__ import annotations

from ..errors import needs_extra
from .config import OptimizerConfig

with needs_extra("train"):
    import torch
    from torch import nn


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """SGD with momentum or AdamW for the parameters that require a gradient.

    Raises:
        ValueError: no parameter requires a gradient.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise ValueError("nothing to train: every weight is frozen")
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},  # biases, norms
    ]
    groups = [group for group in groups if group["params"]]
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=True)
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, 0.999), fused=True)
