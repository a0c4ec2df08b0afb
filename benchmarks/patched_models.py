"""A training step and an inference of torchvision's detection models on the CPU, before and after `patch_torchvision`.

    python benchmarks/patched_models.py --rounds 5 [--clock thread]

It also shows the stages that patching replaces: matching, losses (forward), box coding, selection and suppression; the
matching of SSD is a part of its ``forward`` and not shown. The weights are random, with classifiers that find objects.
Rounds of the stock and of the patched model take turns; the table has the fastest of each. ``--clock thread`` counts
the seconds of the calling thread on a core: they hardly depend on other processes.
"""

from __future__ import annotations

import argparse
import copy
import cProfile
import pstats
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import detection

from retina_ops import patch_torchvision

CLASSES = 91
BUILDERS: dict[str, Callable[..., Any]] = {
    "RetinaNet": detection.retinanet_resnet50_fpn,
    "FCOS": detection.fcos_resnet50_fpn,
    "SSD300 (VGG-16)": detection.ssd300_vgg16,
    "Faster R-CNN": detection.fasterrcnn_resnet50_fpn,
    "Faster R-CNN (MobileNet)": detection.fasterrcnn_mobilenet_v3_large_fpn,
    "Mask R-CNN": detection.maskrcnn_resnet50_fpn,
    "Keypoint R-CNN": detection.keypointrcnn_resnet50_fpn,
}


def build(name: str, size: int) -> Any:
    """The model for images of this size, with logits of a spread and a bias at which some hundred boxes are found."""
    torch.manual_seed(0)
    sizes = {} if "300" in name else {"min_size": size, "max_size": 2 * size}
    classes = {} if name == "Keypoint R-CNN" else {"num_classes": CLASSES}
    model = BUILDERS[name](weights=None, weights_backbone=None, **classes, **sizes)
    head = getattr(getattr(model, "head", None), "classification_head", None)
    classifier = getattr(head, "cls_logits", None)
    if classifier is not None:
        nn.init.normal_(classifier.weight, std=0.03)
        nn.init.constant_(classifier.bias, -3.0)
    return model


def batch(name: str, size: int, images: int, objects: int) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Images of size x 1.25 size with objects, masks and key points."""
    torch.manual_seed(1)
    width = size * 5 // 4
    pictures = [torch.rand(3, size, width) for _ in range(images)]
    targets = []
    for _ in range(images):
        corner = torch.rand(objects, 2) * torch.tensor([width * 0.7, size * 0.7])
        boxes = torch.cat([corner, corner + 8 + torch.rand(objects, 2) * 0.25 * size], dim=1)
        target = {"boxes": boxes, "labels": torch.randint(1, 2 if name == "Keypoint R-CNN" else CLASSES, (objects,))}
        if name == "Mask R-CNN":
            target["masks"] = torch.zeros(objects, size, width, dtype=torch.uint8)
        if name == "Keypoint R-CNN":
            points = (corner + 6)[:, None].repeat(1, 17, 1)
            target["keypoints"] = torch.cat([points, torch.ones(objects, 17, 1)], dim=2)
        targets.append(target)
    return pictures, targets


CLOCKS = {"wall": time.perf_counter, "thread": time.thread_time}
# Functions whose work is replaced, by file; nested ones are counted once. The backward pass of a loss is not in them.
STAGES = {
    "retinanet.py": {"compute_loss", "postprocess_detections"},
    "fused.py": {"_losses", "_detections"},
    "fcos.py": {"compute_loss", "postprocess_detections"},
    "ssd.py": {"postprocess_detections"},
    "rpn.py": {"assign_targets_to_anchors", "filter_proposals"},
    "roi_heads.py": {"assign_targets_to_proposals", "postprocess_detections"},
    "_utils.py": {"encode", "decode"},
}
NESTED = {"decode": "postprocess_detections", "encode": "compute_loss"}  # counted with the latter where it calls them


@dataclass
class Times:
    """Seconds of a call, and of the stages in it that patching replaces."""

    whole: float
    stages: float


def timed(call: Callable[[], Any], clock: Callable[[], float]) -> Times:
    """The call runs twice: once for its whole time, and once under a profiler for its stages."""
    start = clock()
    call()
    whole = clock() - start
    profile = cProfile.Profile(clock)
    profile.runcall(call)
    stages = 0.0
    for (file, _, function), (_, _, _, cumulative, callers) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        if function not in STAGES.get(Path(file).name, ()):
            continue
        outer = [seconds for (_, _, name), (_, _, _, seconds) in callers.items() if name == NESTED.get(function)]
        stages += cumulative - sum(outer)
    return Times(whole, stages)


def measure(name: str, options: argparse.Namespace) -> tuple[list[Times], list[Times]]:
    """The fastest training step and inference, each of the stock and of the patched model."""
    stock = build(name, options.size)
    model = copy.deepcopy(stock)
    report = patch_torchvision(model)
    assert report.replaced and not report.left, report
    images, targets = batch(name, options.size, options.images, options.objects)

    def step(each: Any) -> None:
        each.train().zero_grad(set_to_none=True)
        torch.manual_seed(2)
        sum(each(images, copy.deepcopy(targets)).values()).backward()

    def inference(each: Any) -> None:
        with torch.inference_mode():
            each.eval()(images)

    found: dict[tuple[Any, Any], list[Times]] = {}
    for number in range(options.rounds + 1):
        for call in (step, inference):
            for each in (stock, model):
                times = timed(lambda call=call, each=each: call(each), CLOCKS[options.clock])  # type: ignore[misc]
                if number:  # the first round warms up
                    found.setdefault((call, each), []).append(times)
    fastest = {
        key: Times(min(each.whole for each in times), min(each.stages for each in times))
        for key, times in found.items()
    }
    return [fastest[step, each] for each in (stock, model)], [fastest[inference, each] for each in (stock, model)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=640, help="shorter side of the images; SSD300 has 300")
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--objects", type=int, default=20, help="per image")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--models", nargs="+", default=list(BUILDERS), choices=list(BUILDERS), metavar="NAME")
    options = parser.parse_args(arguments)
    width = options.size * 5 // 4
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; {options.images} image(s) of {options.size} x"
    )
    print(f"{width} with {options.objects} objects; the fastest of {options.rounds} rounds, {options.clock} time\n")
    print("| model | step before | after | its stages | after | inference before | after | its stages | after |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for name in options.models:
        cells = []
        for stock, model in measure(name, options):
            cells += [stock.whole, model.whole, stock.stages, model.stages]
        shown = [f"{1000 * seconds:,.0f} ms" if seconds else "-" for seconds in cells]
        print(f"| {name} | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    main()
