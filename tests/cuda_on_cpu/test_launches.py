"""A launch is given the fields that its RETINA_OPS_LAUNCH names: no fewer, no more, and of their types."""

from __future__ import annotations

import pytest
import torch

from .arguments import limits
from .build import build
from .device import Device, Field, Report


@pytest.fixture(scope="module")
def box_coding() -> Device:
    return Device(build("sanitizers", rooms=["box_coding"]))


def fields_of(count: int) -> dict[str, Field]:
    """Of encoding boxes that are their own proposals."""
    boxes = torch.tensor([[0.0, 0.0, 4.0, 8.0]]).repeat(count, 1)
    return {
        "op": 0,
        "codes": boxes,
        "code_dtype": boxes.dtype,
        "proposals": boxes.clone(),
        "proposal_dtype": boxes.dtype,
        "period": count,
        "grad": None,
        "out": torch.ones(count, 4),
        "weights": (1.0, 1.0, 1.0, 1.0),
        "image_height": -1,
        "image_width": -1,
        "n": count,
        "limits": limits(),
    }


def test_fields_are_filled(box_coding: Device) -> None:
    fields = fields_of(300)
    box_coding.launch("launch_box_coding", fields)
    assert (fields["out"] == 0).all()


def test_a_struct_that_is_left_out_keeps_its_defaults(box_coding: Device) -> None:
    fields = fields_of(300)
    del fields["limits"]
    box_coding.launch("launch_box_coding", fields)
    assert (fields["out"] == 0).all()


@pytest.mark.parametrize(
    ("name", "value", "report"),
    [
        ("periods", 5, "launch_box_coding has no field periods"),
        ("limits", {"first": 0, "most_blocks": 1, "last": 0}, "launch_box_coding has no field limits.last"),
        ("weights", (1.0, 1.0, 1.0), "the case lacks the number weights[3]"),
        ("weights", torch.ones(4), "the case lacks the number weights[0]"),
        ("n", 2.5, "n: not an integer of its field: 2.5"),
        ("op", 2**31, "op: not an integer of its field: 2147483648"),
        ("period", None, "the case lacks the number period"),
    ],
)
def test_other_fields_are_reported(box_coding: Device, name: str, value: Field, report: str) -> None:
    with pytest.raises(Report, match=report.replace("[", r"\[")):
        box_coding.launch("launch_box_coding", fields_of(3) | {name: value})


def test_elements_of_another_size_are_reported() -> None:
    nms = Device(build("sanitizers", rooms=["nms"]))
    with pytest.raises(Report, match="order: elements of 4 bytes for a pointer to 8"):
        nms.launch("launch_nms", {"box_dtype": 2, "score_dtype": 2, "order": torch.zeros(3, dtype=torch.int32)})


def test_an_unknown_launch_is_reported(box_coding: Device) -> None:
    with pytest.raises(Report, match=r"no RETINA_OPS_LAUNCH\(launch_box_area, \.\.\.\) here"):
        box_coding.launch("launch_box_area", {})
