"""Puts the operators of this package in the place of functions of ``torchvision.ops``, for all code of a process."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Collection
from typing import Any

import torch
import torchvision
from torch import Tensor

from .. import _library
from ..ops import box_iou, focal_loss, iou_losses, nms
from .stock import is_torchvisions

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def replace_operators(names: Collection[str] | None = None) -> tuple[tuple[str, ...], dict[str, str]]:
    """Replaces the functions in every module that has imported them.

    Args:
        names: of the functions; default all of `_OPERATORS`.

    Returns:
        The names of the functions that were replaced; and those that were left alone, with the reason.
    """
    found: dict[int, Callable[..., Any]] = {}
    replaced, left = [], {}
    for name in _checked(names):
        ours, is_supported = _OPERATORS[name]
        stock = getattr(torchvision.ops, name, None)
        if stock is None or hasattr(stock, "_stands_for"):
            continue
        if not is_torchvisions(stock):
            module = getattr(stock, "__globals__", {}).get("__name__", type(stock).__module__)
            left[name] = f"torchvision.ops.{name} is {getattr(stock, '__qualname__', stock)} of {module}"
            continue
        found[id(stock)] = _standing_for(stock, ours, is_supported)
        replaced.append(name)
    _exchange(lambda value: found.get(id(value)))
    return tuple(replaced), left


def restore_operators(names: Collection[str] | None = None) -> tuple[str, ...]:
    """Undoes `replace_operators`. Returns the names of the functions that were restored."""
    restored = tuple(name for name in _checked(names) if hasattr(getattr(torchvision.ops, name, None), "_stands_for"))
    found = {id(function): function._stands_for for function in (getattr(torchvision.ops, name) for name in restored)}
    _exchange(lambda value: found.get(id(value)))
    return restored


def _checked(names: Collection[str] | None) -> Collection[str]:
    for name in names or ():
        if name not in _OPERATORS:
            raise ValueError(f"names must be of {', '.join(_OPERATORS)}, got {name!r}")
    return _OPERATORS if names is None else names


def _exchange(new: Callable[[Any], Any]) -> None:
    """Sets each global of each module for which `new` returns another value. This package keeps its own."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "retina_ops":
            continue
        names = getattr(module, "__dict__", {})
        for key, value in list(names.items()):
            if type(value) is _FUNCTION and (other := new(value)) is not None:
                names[key] = other


_FUNCTION = type(_exchange)


def _standing_for(stock: Any, ours: Any, is_supported: Callable[..., bool]) -> Callable[..., Any]:
    """A function that calls ours where it supports the arguments, torchvision's otherwise."""

    @functools.wraps(stock)
    def function(*arguments: Any, **options: Any) -> Any:
        tensors = [value for value in (*arguments, *options.values()) if isinstance(value, Tensor)]
        if all(map(_is_plain, tensors)) and is_supported(*tensors):
            return ours(*arguments, **options)
        return stock(*arguments, **options)

    function._stands_for = stock  # type: ignore[attr-defined]
    function.__prepare_scriptable__ = lambda: stock  # type: ignore[attr-defined]  # TorchScript compiles torchvision's
    return function


def _is_plain(tensor: Tensor) -> bool:
    """Whether the tensor is on a device for which this package has kernels, and no subclass."""
    if type(tensor) not in (Tensor, torch.nn.Parameter) or tensor.is_quantized or tensor.layout != torch.strided:
        return False
    return tensor.device.type == "cpu" or (tensor.device.type == "cuda" and _library._cuda_problem is None)


def _are_scored_boxes(*tensors: Tensor) -> bool:
    return len(tensors) >= 2 and all(tensor.dtype in _FLOATS for tensor in tensors[:2])


def _are_boxes(*tensors: Tensor) -> bool:
    return len(tensors) == 2 and all(tensor.dtype in (*_FLOATS, *_INTEGERS) for tensor in tensors)


def _are_dense_targets(*tensors: Tensor) -> bool:
    if len(tensors) != 2:
        return False
    inputs, targets = tensors
    is_dense = inputs.dtype in _FLOATS and targets.dtype in _FLOATS and inputs.shape == targets.shape
    return is_dense and not targets.requires_grad


# The function of this package for each one of ``torchvision.ops``, and whether it supports given tensors.
_OPERATORS: dict[str, tuple[Any, Callable[..., bool]]] = {
    "nms": (nms.nms, _are_scored_boxes),
    "batched_nms": (nms.batched_nms, _are_scored_boxes),
    "box_iou": (box_iou.box_iou, _are_boxes),
    "generalized_box_iou": (box_iou.generalized_box_iou, _are_boxes),
    "distance_box_iou": (box_iou.distance_box_iou, _are_boxes),
    "complete_box_iou": (box_iou.complete_box_iou, _are_boxes),
    "generalized_box_iou_loss": (iou_losses.generalized_box_iou_loss, _are_boxes),
    "distance_box_iou_loss": (iou_losses.distance_box_iou_loss, _are_boxes),
    "complete_box_iou_loss": (iou_losses.complete_box_iou_loss, _are_boxes),
    "sigmoid_focal_loss": (focal_loss.sigmoid_focal_loss, _are_dense_targets),
}
