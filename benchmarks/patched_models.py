"""A training step and an inference of torchvision's detection models on the CPU, before and after `patch_torchvision`.

    python benchmarks/patched_models.py --rounds 5 [--clock cpu]

The weights are random, with classifiers that find objects. Rounds of the stock and of the patched model take turns. The
table has the fastest of each, which other processes disturb least. ``--clock cpu`` counts the seconds that the cores
spend on the process: they hardly depend on other processes, but waiting threads count.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Sequence
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


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def step(model: Any, images: list[Tensor], targets: list[dict[str, Tensor]], clock: Callable[[], float]) -> float:
    """Seconds of a forward and backward pass."""
    model.train().zero_grad(set_to_none=True)
    torch.manual_seed(2)
    start = clock()
    sum(model(images, copy.deepcopy(targets)).values()).backward()
    return clock() - start


def inference(model: Any, images: list[Tensor], clock: Callable[[], float]) -> float:
    """Seconds of a forward pass in evaluation."""
    model.eval()
    with torch.inference_mode():
        start = clock()
        model(images)
        return clock() - start


def measure(name: str, size: int, images: int, objects: int, rounds: int, clock: Callable[[], float]) -> list[float]:
    """Seconds of the fastest round: step of the stock and of the patched model, inference of both."""
    stock = build(name, size)
    model = copy.deepcopy(stock)
    report = patch_torchvision(model)
    assert report.replaced and not report.left, report
    given, targets = batch(name, size, images, objects)
    times: list[list[float]] = [[], [], [], []]
    for number in range(rounds + 1):
        row = [step(each, given, targets, clock) for each in (stock, model)]
        row += [inference(each, given, clock) for each in (stock, model)]
        if number:  # the first round warms up
            for found, seconds in zip(times, row, strict=True):
                found.append(seconds)
    return [min(found) for found in times]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=480, help="shorter side of the images; SSD300 has 300")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--objects", type=int, default=20, help="per image")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--models", nargs="+", default=list(BUILDERS), choices=list(BUILDERS), metavar="NAME")
    options = parser.parse_args(arguments)
    images = f"{options.images} images of {options.size} x {options.size * 5 // 4}, {options.objects} objects each"
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {images}")
    print(f"the fastest of {options.rounds} rounds, {options.clock} time\n")
    print("| model | step before | after | inference before | after |\n|---|---:|---:|---:|---:|")
    for name in options.models:
        found = measure(name, options.size, options.images, options.objects, options.rounds, CLOCKS[options.clock])
        print(f"| {name} | " + " | ".join(f"{1000 * seconds:,.0f} ms" for seconds in found) + " |", flush=True)


if __name__ == "__main__":
    main()
