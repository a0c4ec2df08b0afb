"""Models as files: ``model.safetensors`` with the weights and ``config.json`` with what `build_model` needs.

The file names are those of the Hugging Face Hub. ``PyTorchModelHubMixin`` is not used: it drops constructor arguments
that are modules from ``config.json``, loads weights with ``strict=False``, so that weights of another model pass in
silence, and requires huggingface_hub.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .._defaults import standard_defaults
from ..errors import DataError, needs_extra
from ..files import read_json, write_bytes, write_json
from .architectures import build_model
from .config import ModelConfig
from .retinanet import RetinaNet

with needs_extra("models"):
    import torch
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file, save
    from torch import Tensor

WEIGHTS, CONFIG = "model.safetensors", "config.json"
PICKLED = (".pth", ".pt")  # what torch.save writes
_AVERAGE = "loss_normalizer.average"  # present only with the normalization "ema"


def save_model(model: RetinaNet, directory: str | Path, extra: dict[str, Any] | None = None) -> Path:
    """Writes a model that `build_model` built. Each file is written completely or not at all.

    Args:
        model: with its ``config`` and ``categories``.
        directory: created if it is missing.
        extra: further plain values for ``config.json``, such as metrics.

    Returns:
        The path of the weights.

    Raises:
        ValueError: the model has no ``config``, or settings that ``config.json`` cannot hold.
        DataError: the directory holds weights or a ``config.json`` of another program.
        OSError: a file cannot be written.
    """
    if model.config is None:
        raise ValueError("only a model from build_model can be saved: its config is needed to build it again")
    directory = Path(directory)
    check_replaceable(directory)
    config = _current_config(model)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_bytes(directory / WEIGHTS, save(tensors, metadata={"format": "pt", "writer": "retina_ops"}))
    described = {"model": config.to_dict(), "categories": model.categories, **(extra or {})}
    write_json(directory / CONFIG, described, indent=2)
    return directory / WEIGHTS


def check_replaceable(directory: Path) -> None:
    """Raises DataError if a directory holds weights or a ``config.json`` that `save_model` did not write."""
    config, weights = directory / CONFIG, directory / WEIGHTS
    if config.exists():
        try:
            values = read_json(config)
        except DataError:
            values = None
        if not (isinstance(values, dict) and {"model", "categories"} <= values.keys()):
            raise DataError(config, "exists and is not of a model of retina_ops: choose another folder")
    elif weights.exists():  # a crash can leave weights without a configuration
        try:
            with safe_open(weights, framework="pt") as stored:
                writer = (stored.metadata() or {}).get("writer")
        except (SafetensorError, OSError):
            writer = None
        if writer != "retina_ops":
            raise DataError(weights, "exists and is not of a model of retina_ops: choose another folder")


def _current_config(model: RetinaNet) -> ModelConfig:
    """The model's configuration with the settings that it has now."""
    assert model.config is not None
    for name, coder in (("box_coder", model.box_coder), ("head.regression_head.box_coder", _loss_coder(model))):
        weights = tuple(coder.weights)
        if weights != (1, 1, 1, 1):
            raise ValueError(f"{name} has weights {weights}: a model can be saved with (1, 1, 1, 1) alone")
    if model.detections_per_img is None:
        raise ValueError("detections_per_img is None: a model can be saved with a number alone")
    return replace(
        model.config,
        loss=model.loss_options,
        score_thresh=model.score_thresh,
        nms_thresh=model.nms_thresh,
        detections_per_img=model.detections_per_img,
        topk_candidates=model.topk_candidates,
    )


def _loss_coder(model: RetinaNet) -> Any:
    return getattr(getattr(model.head, "regression_head", None), "box_coder", model.box_coder)


@standard_defaults()
def load_model(path: str | Path, device: str | torch.device = "cpu") -> RetinaNet:
    """A model that `save_model` wrote, in evaluation mode.

    Args:
        path: the weights, or their folder.
        device: where to put it.

    Raises:
        DataError: a missing or damaged file, or weights that do not fit the configuration.
    """
    weights = _weights_path(path)
    if weights.suffix in PICKLED and not weights.with_name(CONFIG).is_file():
        best = weights.with_name("best")
        which = f", such as {best}" if best.is_dir() else f" ({WEIGHTS} and {CONFIG})"
        raise DataError(weights, f"does not say what model it is of: give the folder of a trained model{which}")
    values = read_json(weights.with_name(CONFIG))
    try:
        model = build_model(ModelConfig.from_dict(values["model"]), values["categories"], pretrained=False)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(weights.with_name(CONFIG), f"does not describe a model ({error})") from None
    tensors = _read_tensors(weights)
    problem = _misfit(model.state_dict(), tensors)
    if problem:
        raise DataError(weights, f"weights of another architecture than {CONFIG} says: {problem}")
    model.load_state_dict(tensors)
    return model.to(device).eval()


@dataclass
class TransferReport:
    """What `transfer_weights` did: names of the tensors loaded, and of those left at their initial values."""

    loaded: list[str]
    renewed: list[str]

    def __str__(self) -> str:
        renewed = ", ".join(self.renewed) if self.renewed else "nothing"
        return f"took over {len(self.loaded)} tensors (backbone, FPN, subnets); renewed: {renewed}"


def transfer_weights(model: RetinaNet, path: str | Path) -> TransferReport:
    """Loads the weights of another model; where the classes differ, all except the last layer of the classifier.

    Args:
        model: takes the weights, in place.
        path: weights that `save_model` wrote, their folder, or a ``.pth`` or ``.pt`` file: a state dict, or a
            checkpoint that has one as ``model`` or ``state_dict``.

    Raises:
        DataError: a missing or damaged file, or weights of another architecture.
    """
    path = Path(path)
    source = path if path.suffix in PICKLED else _weights_path(path)
    tensors = _read_tensors(source)
    own = {name: tensor for name, tensor in model.state_dict().items() if name != _AVERAGE}
    tensors.pop(_AVERAGE, None)  # it belongs to another data set
    renewable = {name for name in own if ".cls_logits." in name}
    same_classes = all(name in tensors and tensors[name].shape == own[name].shape for name in renewable)
    config = source.with_name(CONFIG)
    if same_classes and config.is_file():
        same_classes = read_json(config).get("categories") == model.categories
    renewed = set() if same_classes else renewable
    taken = {name: tensor for name, tensor in tensors.items() if name not in renewed}
    problem = _misfit({name: tensor for name, tensor in own.items() if name not in renewed}, taken)
    if problem:
        raise DataError(source, f"weights of another architecture than the model: {problem}")
    model.load_state_dict(taken, strict=False)
    return TransferReport(sorted(set(own) - renewed), sorted(renewed))


def _weights_path(path: str | Path) -> Path:
    path = Path(path)
    weights = path / WEIGHTS if path.is_dir() else path
    if not weights.is_file():
        raise DataError(weights, "no such file: expected the weights or their folder")
    return weights


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix in PICKLED:
            return _state_dict(torch.load(path, map_location="cpu", weights_only=True))
        return load_file(path)
    except FileNotFoundError:
        raise DataError(path, "no such file") from None
    except (SafetensorError, json.JSONDecodeError, RuntimeError, EOFError, OSError, AttributeError) as error:
        raise DataError(path, f"not weights that can be read ({type(error).__name__}: {error})") from None
    except Exception as error:  # torch.load raises pickle's own errors for damaged files
        raise DataError(path, f"not weights that can be read ({type(error).__name__})") from None


def _state_dict(loaded: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of a state dict, also of one in a checkpoint, or saved from a model in DistributedDataParallel."""
    for key in ("model", "state_dict", "model_state_dict"):
        if isinstance(loaded.get(key), dict):
            loaded = loaded[key]
            break
    tensors: dict[str, Tensor] = {name: value for name, value in loaded.items() if isinstance(value, Tensor)}
    for prefix in ("module.", "_orig_mod.", "model."):
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _misfit(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> str | None:
    """The first difference between wanted and found tensors, in one line; None if there is none."""
    for name, tensor in wanted.items():
        if name not in found:
            return f"{name} is missing ({len(set(wanted) - set(found))} tensors are)"
        if found[name].shape != tensor.shape:
            return f"{name} is {list(found[name].shape)}, wanted {list(tensor.shape)}"
    surplus = sorted(set(found) - set(wanted))
    return f"{surplus[0]} is not part of the model ({len(surplus)} tensors are not)" if surplus else None
