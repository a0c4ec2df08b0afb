"""Our RetinaNet in place of torchvision's: each of its attributes takes effect, and subclasses written for it run."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from models.pairs import assert_same_detections, tiny_batch, tiny_torchvision
from torch import Tensor, nn
from torchvision.models.detection import retinanet as stock_module
from torchvision.models.detection._utils import BoxCoder, Matcher, SSDMatcher
from torchvision.models.detection.anchor_utils import AnchorGenerator

import retina_ops.models
from retina_ops import patch_torchvision
from retina_ops.models import LossOptions, RetinaNet
from retina_ops.models.retinanet import Resize

CELLS = (((12, 16), (24, 32), (48, 64)), ((0.5, 1.0, 2.0),) * 3)


def both(ours: type = RetinaNet, theirs: type = stock_module.RetinaNet) -> tuple[Any, Any]:
    """Models of the same weights in float64, where results differ by rounding alone."""
    return tiny_torchvision(ours).double(), tiny_torchvision(theirs).double()


def assert_alike(ours: Any, theirs: Any, least: int = 0) -> None:
    """The same losses, gradients and detections."""
    images, targets = tiny_batch(dtype=torch.float64)
    results = []
    for model in (ours, theirs):
        model.train().zero_grad(set_to_none=True)
        losses = model(images, copy.deepcopy(targets))
        sum(losses.values()).backward()
        with torch.no_grad():
            results.append((losses, [p.grad for p in model.parameters()], model.eval()(images)))
    (losses, gradients, found), (expected, wanted, detections) = results
    assert list(losses) == list(expected)
    for name, loss in expected.items():
        torch.testing.assert_close(losses[name], loss, rtol=1e-9, atol=1e-12)
    for mine, other in zip(gradients, wanted, strict=True):
        assert (mine is None) == (other is None)
        if mine is not None:
            assert (mine - other).abs().max() <= 1e-9 * max(1.0, float(other.abs().max()))
    assert_same_detections(found, detections, least=least)


# --- attributes -------------------------------------------------------------------------------------------------------


class ScaledMatcher(Matcher):
    """A matcher of one's own."""

    def __call__(self, match_quality_matrix: Tensor) -> Tensor:
        return super().__call__(1.2 * match_quality_matrix)


class HalvingCoder(BoxCoder):
    """A box coder of one's own."""

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        return super().decode_single(rel_codes / 2, boxes)

    def encode_single(self, reference_boxes: Tensor, proposals: Tensor) -> Tensor:
        return 2 * super().encode_single(reference_boxes, proposals)


def doubled_loss(self: Any, *arguments: Any) -> Any:
    return {name: 2 * loss for name, loss in type(self).compute_loss(self, *arguments).items()}


def without_the_best(self: Any, *arguments: Any) -> Any:
    found = type(self).postprocess_detections(self, *arguments)
    return [{name: rows[1:] for name, rows in image.items()} for image in found]


def with_total(self: Any, losses: Any, detections: Any) -> Any:
    return {**losses, "total": sum(losses.values())} if self.training else detections


class HalfBackbone(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.out_channels = body, 16

    def forward(self, x: Tensor) -> Any:
        return {name: level / 2 for name, level in self.body(x).items()}


def moved_anchors(self: Any, *arguments: Any) -> list[Tensor]:
    return [anchors + 2 * image for image, anchors in enumerate(AnchorGenerator.forward(self, *arguments))]


Change = Callable[[Any], None]


def setting(path: str, value: Any) -> Change:
    def change(model: Any) -> None:
        *owners, name = path.split(".")
        for owner in owners:
            model = getattr(model, owner)
        setattr(model, name, copy.deepcopy(value))

    return change


def method(path: str, function: Any) -> Change:
    """Sets a method on the instance."""

    def change(model: Any) -> None:
        *owners, name = path.split(".")
        for owner in owners:
            model = getattr(model, owner)
        model.__dict__[name] = function.__get__(model)

    return change


# Every public attribute of torchvision's RetinaNet, and changes of it that must do what they do to torchvision's.
ATTRIBUTES: dict[str, list[Change]] = {
    "score_thresh": [setting("score_thresh", 0.5)],
    "nms_thresh": [setting("nms_thresh", 0.1)],
    "detections_per_img": [setting("detections_per_img", 7), setting("detections_per_img", None)],
    "topk_candidates": [setting("topk_candidates", 9)],
    "proposal_matcher": [
        setting("proposal_matcher", Matcher(0.6, 0.2, allow_low_quality_matches=False)),
        setting("proposal_matcher.high_threshold", 0.7),
        setting("proposal_matcher.low_threshold", 0.1),
        setting("proposal_matcher.allow_low_quality_matches", False),
        setting("proposal_matcher", ScaledMatcher(0.5, 0.4, allow_low_quality_matches=True)),
        setting("proposal_matcher", SSDMatcher(0.5)),
        setting("proposal_matcher.BETWEEN_THRESHOLDS", -1),
    ],
    "box_coder": [
        setting("box_coder.weights", (10.0, 8.0, 5.0, 4.0)),
        setting("box_coder", BoxCoder((2.0, 2.0, 3.0, 3.0))),
        setting("box_coder", HalvingCoder((1.0, 1.0, 1.0, 1.0))),
        setting("box_coder.bbox_xform_clip", 0.1),
    ],
    "anchor_generator": [
        setting("anchor_generator", AnchorGenerator(((10, 20), (30, 40), (50, 60)), ((0.7, 1.0, 1.4),) * 3)),
        method("anchor_generator.forward", moved_anchors),
        method(
            "anchor_generator.grid_anchors",
            lambda self, *given: [3 + each for each in type(self).grid_anchors(self, *given)],
        ),
        lambda model: model.anchor_generator.register_forward_hook(lambda _, given, out: [3 + each for each in out]),
    ],
    "head": [
        setting("head.regression_head._loss_type", "giou"),
        setting("head.regression_head.box_coder.weights", (10.0, 10.0, 5.0, 5.0)),
        setting("head.regression_head.box_coder", HalvingCoder((1.0, 1.0, 1.0, 1.0))),
        setting("head", tiny_torchvision().double().head),
        setting("head.classification_head", tiny_torchvision().double().head.classification_head),
        setting("head.regression_head", tiny_torchvision().double().head.regression_head),
        method("head.regression_head.compute_loss", lambda self, *_: self.bbox_reg.bias.sum()),
        method("head.compute_loss", lambda self, *_: {"mine": self.regression_head.bbox_reg.bias.sum()}),
        lambda model: model.head.regression_head.register_forward_hook(lambda _, given, out: 0.5 * out),
        lambda model: model.head.register_forward_hook(
            lambda _, given, out: {**out, "cls_logits": out["cls_logits"] + 0.5}
        ),
    ],
    "backbone": [lambda model: setattr(model, "backbone", HalfBackbone(model.backbone))],
    "transform": [setting("transform.image_mean", [0.1, 0.2, 0.3]), setting("transform.min_size", (48,))],
    "compute_loss": [method("compute_loss", doubled_loss)],
    "postprocess_detections": [method("postprocess_detections", without_the_best)],
    "eager_outputs": [method("eager_outputs", with_total)],
}

# Changes that give what was there before: a head of the same weights, and no limit where there are few detections.
SAME = {("head", 3), ("head", 4), ("head", 5), ("detections_per_img", 1)}


def test_every_attribute_of_torchvisions_class_is_tested() -> None:
    """Those of the class and those that its constructor sets, without nn.Module's."""
    stock = tiny_torchvision()
    names = set(dir(stock)) - set(dir(nn.Module()))
    public = {name for name in names if not name.startswith("_")}
    assert public == set(ATTRIBUTES)
    assert public <= set(dir(tiny_torchvision(RetinaNet)))
    options = set(inspect.signature(stock_module.RetinaNet.__init__).parameters)
    assert list(inspect.signature(RetinaNet.__init__).parameters)[: len(options) - 1] == [
        name for name in inspect.signature(stock_module.RetinaNet.__init__).parameters if name != "kwargs"
    ]


@pytest.mark.parametrize(
    ("name", "number"), [(name, number) for name, changes in ATTRIBUTES.items() for number in range(len(changes))]
)
def test_a_changed_attribute_has_torchvisions_effect(name: str, number: int) -> None:
    ours, theirs = both()
    images, targets = tiny_batch(dtype=torch.float64)
    with torch.no_grad():
        before = (theirs.train()(images, copy.deepcopy(targets)), theirs.eval()(images))
    for model in (ours, theirs):
        ATTRIBUTES[name][number](model)
    assert_alike(ours, theirs)
    with torch.no_grad():
        after = (theirs.train()(images, copy.deepcopy(targets)), theirs.eval()(images))
    if (name, number) not in SAME:
        assert str(before) != str(after), "the change must change something"


def test_unchanged_models_are_alike() -> None:
    assert_alike(*both(), least=20)


@pytest.mark.parametrize(
    ("name", "value", "option"), [("fg_iou_thresh", 0.7, "high_threshold"), ("bg_iou_thresh", 0.2, "low_threshold")]
)
def test_arguments_of_the_constructor_are_attributes(name: str, value: float, option: str) -> None:
    ours, theirs = both()
    setattr(ours, name, value)
    setattr(theirs.proposal_matcher, option, value)
    assert getattr(ours, name) == value == getattr(ours.loss_options, name)
    assert_alike(ours, theirs)


def test_options_and_attributes_are_one() -> None:
    model = tiny_torchvision(RetinaNet)
    model.score_thresh = 0.9
    assert model.postprocess_options.score_thresh == 0.9
    model.postprocess_options.nms_thresh = 0.3
    assert model.nms_thresh == 0.3
    model.loss_options = LossOptions(fg_iou_thresh=0.7, bg_iou_thresh=0.3, box_loss="giou")
    assert (model.proposal_matcher.high_threshold, model.bg_iou_thresh) == (0.7, 0.3)
    assert model.head.regression_head._loss_type == "giou"
    model.bg_iou_thresh = 0.8
    with pytest.raises(ValueError, match=r"bg_iou_thresh must be at most fg_iou_thresh, 0\.7, got 0\.8"):
        model(*tiny_batch())
    model.proposal_matcher = lambda quality: quality.max(dim=0).indices
    with pytest.raises(AttributeError, match="proposal_matcher is function, which has no high_threshold"):
        model.fg_iou_thresh = 0.6


def test_rejects_options_that_a_composed_loss_has_not() -> None:
    model = tiny_torchvision(RetinaNet)
    model.proposal_matcher = ScaledMatcher(0.5, 0.4)
    model.loss_options = LossOptions(gamma=1.0)
    with pytest.raises(RuntimeError, match=r"loss_options\.gamma is 1\.0: with a matcher, .* it must be 2\.0"):
        model(*tiny_batch())


def test_crowds_and_weight_in_a_composed_loss() -> None:
    """The loss that a matcher of one's own leads to ignores crowds as the fused one does."""
    losses = []
    images, targets = tiny_batch()
    targets[0]["iscrowd"] = torch.tensor([0, 1, 0, 0, 1])
    for matcher in (Matcher(0.5, 0.4, allow_low_quality_matches=True), type("Own", (Matcher,), {})(0.5, 0.4, True)):
        model = tiny_torchvision(RetinaNet)
        model.loss_options = LossOptions(box_loss_weight=3.0)
        model.proposal_matcher = matcher
        losses.append(model(images, copy.deepcopy(targets)))
    for name, loss in losses[0].items():
        torch.testing.assert_close(losses[1][name], loss, rtol=1e-5, atol=0)


# --- subclasses -------------------------------------------------------------------------------------------------------


def subclasses_of(base: type) -> dict[str, type]:
    """Subclasses as users write them for torchvision's class, here of any base."""

    class WithLoss(base):  # type: ignore[misc,valid-type]
        def compute_loss(self, targets: Any, head_outputs: Any, anchors: Any) -> Any:
            assert head_outputs["cls_logits"].dim() == 3 and len(anchors) == len(targets)
            losses = super().compute_loss(targets, head_outputs, anchors)
            losses["extra"] = head_outputs["cls_logits"].square().mean()
            return losses

    class WithMovedAnchors(base):  # type: ignore[misc,valid-type]
        def compute_loss(self, targets: Any, head_outputs: Any, anchors: Any) -> Any:
            for image, of_image in enumerate(anchors):
                of_image += image
            return super().compute_loss(targets, head_outputs, anchors)

        def postprocess_detections(self, head_outputs: Any, anchors: Any, image_shapes: Any) -> Any:
            for image, of_image in enumerate(anchors):
                for level in of_image:
                    level += image
            return super().postprocess_detections(head_outputs, anchors, image_shapes)

    class WithPostprocessing(base):  # type: ignore[misc,valid-type]
        def postprocess_detections(self, head_outputs: Any, anchors: Any, image_shapes: Any) -> Any:
            assert [rows.shape[1] for rows in head_outputs["cls_logits"]] == [len(level) for level in anchors[0]]
            calmed = {**head_outputs, "cls_logits": [rows - 0.2 for rows in head_outputs["cls_logits"]]}
            return super().postprocess_detections(calmed, anchors, image_shapes)

    class LossesInEvaluation(base):  # type: ignore[misc,valid-type]
        """torchvision's forward written out, returning both, as validation losses need it."""

        def forward(self, images: Any, targets: Any = None) -> Any:
            sizes = [tuple(image.shape[-2:]) for image in images]
            batch, targets = self.transform(images, targets)
            features = list(self.backbone(batch.tensors).values())
            outputs = self.head(features)
            anchors = self.anchor_generator(batch, features)
            losses = self.compute_loss(targets, outputs, anchors) if targets is not None else {}
            if self.training:
                return losses
            cells = [level.shape[-2] * level.shape[-1] for level in features]
            per_cell = outputs["cls_logits"].size(1) // sum(cells)
            counts = [count * per_cell for count in cells]
            levels = {name: list(rows.split(counts, dim=1)) for name, rows in outputs.items()}
            split = [list(each.split(counts)) for each in anchors]
            found = self.postprocess_detections(levels, split, batch.image_sizes)
            return self.transform.postprocess(found, batch.image_sizes, sizes)

    class WithOutputs(base):  # type: ignore[misc,valid-type]
        def eager_outputs(self, losses: Any, detections: Any) -> Any:
            return {**losses, "sum": sum(losses.values())} if self.training else detections

    kinds = (WithLoss, WithMovedAnchors, WithPostprocessing, LossesInEvaluation, WithOutputs)
    return {kind.__name__: kind for kind in kinds}


OURS, THEIRS = subclasses_of(RetinaNet), subclasses_of(stock_module.RetinaNet)


@pytest.mark.parametrize("name", OURS)
def test_subclasses_written_for_torchvision_run(name: str) -> None:
    assert_alike(*both(OURS[name], THEIRS[name]))


def test_it_is_a_torchvision_model() -> None:
    """For code that asks with isinstance, or that puts a new classifier into a trained model."""
    model = tiny_torchvision(RetinaNet)
    assert isinstance(model, stock_module.RetinaNet) and isinstance(model.head, stock_module.RetinaNetHead)
    assert isinstance(model.transform, Resize)
    classifier = model.head.classification_head
    assert (classifier.num_classes, classifier.num_anchors) == (3, 6)
    classifier.cls_logits, classifier.num_classes = nn.Conv2d(16, 6 * 2, 3, padding=1), 2
    losses = model(*[batch[:2] for batch in tiny_batch_of_two_classes()])
    assert all(loss.isfinite() for loss in losses.values())
    model.head.classification_head = stock_module.RetinaNetClassificationHead(16, 6, 2)
    model.score_thresh = 0.0
    found = model.eval()(tiny_batch()[0])
    assert all(set(image["labels"].tolist()) == {0, 1} for image in found)


def tiny_batch_of_two_classes() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    images, targets = tiny_batch()
    return images, [{**target, "labels": target["labels"] % 2} for target in targets]


@pytest.mark.parametrize("path", ["", "head", "head.classification_head", "head.regression_head"])
def test_torchscript_is_refused_with_a_sentence(path: str) -> None:
    module = tiny_torchvision(RetinaNet).get_submodule(path)
    with pytest.raises(
        RuntimeError, match=r"^retina_ops\.models\.\w+: TorchScript is not supported; use torch\.compile"
    ):
        torch.jit.script(module)


@pytest.mark.parametrize("name", ["ours", "patched"])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_hooks_for_all_modules_see_what_torchvisions_modules_return(name: str, mode: str) -> None:
    """As profilers and feature extractors set them."""
    model, stock = tiny_torchvision(RetinaNet if name == "ours" else stock_module.RetinaNet), tiny_torchvision()
    if name == "patched":
        patch_torchvision(model)
    images, targets = tiny_batch()
    seen: list[tuple[str, list[Any]]] = []

    def shapes(value: Any) -> Any:
        if isinstance(value, Tensor):
            return list(value.shape)
        values = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
        return [shapes(each) for each in values]

    records = []
    for each in (model, stock):
        getattr(each, mode)()
        handle = torch.nn.modules.module.register_module_forward_hook(
            lambda module, given, output: seen.append((type(module).__bases__[0].__name__, shapes(output)))
        )
        try:
            each(images, copy.deepcopy(targets))
        finally:
            handle.remove()
        records.append([output for _, output in seen])
        seen.clear()
    assert records[0] == records[1] and len(records[0]) > 10


class Scores(nn.Module):
    """Returns tensors, as torch.jit.trace wants them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model([image])[0]["scores"]


@pytest.mark.parametrize("name", ["ours", "patched"])
def test_tracing_is_refused(name: str) -> None:
    """A trace would have the sizes and the numbers of detections of its example, in silence."""
    model = tiny_torchvision(RetinaNet if name == "ours" else stock_module.RetinaNet).eval()
    if name == "patched":
        patch_torchvision(model)
    with pytest.raises(RuntimeError, match=r"torch\.jit\.trace is not supported; use torch\.compile or torch\.export"):
        torch.jit.trace(Scores(model), torch.rand(3, 64, 96))


def test_every_model_has_torchvisions_class() -> None:
    for name in dir(retina_ops.models):
        kind = getattr(retina_ops.models, name)
        if inspect.isclass(kind) and name.startswith("RetinaNet"):
            assert issubclass(kind, getattr(stock_module, name))
