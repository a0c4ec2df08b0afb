"""What each call of a patched model spends on checking that nothing was changed.

``pytest benchmarks/bench_patching.py --benchmark-columns=median,iqr,rounds`` shows it alone.
"""

from __future__ import annotations

import torch
from cases import stock_retinanet

from retina_ops import patch_torchvision
from retina_ops.patching.fused import check_unchanged


def bench_patching(benchmark) -> None:
    model = stock_retinanet("resnet18", (64, 96), 3).eval()
    patch_torchvision(model)
    with torch.inference_mode():
        model([torch.rand(3, 64, 96)])  # from the second call on, the fingerprint is known
    benchmark.group = "patch_torchvision: the check at each call"
    benchmark(check_unchanged, model)
    assert model._retina_ops.fingerprint
