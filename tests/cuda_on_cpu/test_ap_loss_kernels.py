"""The AP loss on an emulated device: every dtype, both kinds of targets, more positives than a block has threads."""

from __future__ import annotations

from .device import Device
from .rooms.ap_loss import updates, updates_in_several_passes


def test_updates(gpu: Device) -> None:
    updates(gpu)


def test_updates_in_several_passes(gpu: Device) -> None:
    updates_in_several_passes(gpu)
