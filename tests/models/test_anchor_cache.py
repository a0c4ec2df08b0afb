"""Anchors: torchvision's, computed once an image size, right from any thread, device, dtype and under compilation."""

from __future__ import annotations

import copy
import pickle
import threading

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from retina_ops import anchor_cache
from retina_ops.anchor_cache import AnchorCache
from retina_ops.models import default_anchor_generator

STRIDES = (8, 16, 32, 64, 128)


def maps_of(size: tuple[int, int], device: str = "cpu", dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.zeros(1, 1, *(-(-side // stride) for side in size), device=device, dtype=dtype) for stride in STRIDES]


def torchvision_anchors(generator: AnchorGenerator, size: tuple[int, int], maps: list[Tensor]) -> Tensor:
    image = ImageList(maps[0].new_empty(1, 1, *size), [size])
    return copy.deepcopy(generator)(image, maps)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(64, 64), (800, 1088), (100, 37), (8, 8)], ids=str)
def test_equals_torchvision(device: str, size: tuple[int, int], dtype: torch.dtype) -> None:
    """Sizes that no stride divides too: a level's stride is the quotient rounded down."""
    generator, maps = default_anchor_generator(), maps_of(size, device, dtype)
    anchors = AnchorCache().get(generator, size, maps)
    expected = torchvision_anchors(generator, size, maps)
    assert anchors.dtype == dtype and anchors.device == maps[0].device and torch.equal(anchors, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_features_have_float32_anchors(device: str, dtype: torch.dtype) -> None:
    generator, size = default_anchor_generator(), (256, 2560)  # past 2048, where float16 has no odd numbers
    anchors = AnchorCache().get(generator, size, maps_of(size, device, dtype))
    assert torch.equal(anchors, torchvision_anchors(generator, size, maps_of(size, device)))
    assert not torch.equal(anchors, torchvision_anchors(generator, size, maps_of(size, device, dtype)).float())


def test_each_size_is_computed_once(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[tuple[int, int]] = []
    compute = anchor_cache.grid_anchors

    def counted(cells: list[Tensor], grids: list[tuple[int, int]], size: tuple[int, int], *rest: object) -> Tensor:
        computed.append(size)
        return compute(cells, grids, size, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(anchor_cache, "grid_anchors", counted)
    generator, cache = default_anchor_generator(), AnchorCache(capacity=2)
    for side in (64, 96, 64, 96, 128, 96, 64):
        cache.get(generator, (64, side), maps_of((64, side), device))
        assert len(cache) <= 2
    assert computed == [(64, 64), (64, 96), (64, 128), (64, 64)]  # the one used longest ago is dropped


def test_other_cells_are_other_anchors(device: str) -> None:
    """Cell anchors that are replaced or changed in place; those of a dropped generator are not taken for its heir's."""
    cache, size = AnchorCache(), (64, 96)
    for scale in (1.0, 2.0, 3.0):
        generator = default_anchor_generator()  # may get the memory of the last one
        generator.cell_anchors = [scale * cells for cells in generator.cell_anchors]
        maps = maps_of(size, device)
        assert torch.equal(cache.get(generator, size, maps), torchvision_anchors(generator, size, maps))
        generator.cell_anchors[0][0] += 1
        assert torch.equal(cache.get(generator, size, maps), torchvision_anchors(generator, size, maps))


def test_the_generator_is_not_changed(device: str) -> None:
    generator = default_anchor_generator()
    before = list(generator.cell_anchors)
    AnchorCache().get(generator, (64, 64), maps_of((64, 64), device, torch.float64))
    assert all(a is b for a, b in zip(before, generator.cell_anchors, strict=True))


def test_devices_have_their_own(device: str) -> None:
    generator, cache = default_anchor_generator(), AnchorCache()
    for where in (device, "meta", "cpu", device):
        assert cache.get(generator, (64, 64), maps_of((64, 64), where)).device.type == where
    assert torch.equal(
        cache.get(generator, (64, 64), maps_of((64, 64), device)).cpu(),
        cache.get(generator, (64, 64), maps_of((64, 64), "cpu")),
    )


def test_anchors_made_for_inference_serve_training(device: str) -> None:
    generator, cache, maps = default_anchor_generator(), AnchorCache(), maps_of((64, 64), device)
    with torch.inference_mode():
        cache.get(generator, (64, 64), maps)
    deltas = torch.zeros(1, device=device, requires_grad=True)
    (deltas * cache.get(generator, (64, 64), maps)).sum().backward()  # saves the anchors
    assert deltas.grad is not None


def test_copies_are_empty() -> None:
    cache = AnchorCache(capacity=5)
    cache.get(default_anchor_generator(), (64, 64), maps_of((64, 64)))
    for twin in (copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
        assert len(twin) == 0 and twin.capacity == 5
        assert len(twin.get(default_anchor_generator(), (64, 64), maps_of((64, 64)))) > 0


def test_threads_share_it() -> None:
    """Many sizes through a cache that holds few, from several threads at once: bounded, and each answer right."""
    generator, cache = default_anchor_generator(), AnchorCache(capacity=3)
    sizes = [(64, 32 * side) for side in range(2, 10)]
    expected = {size: torchvision_anchors(generator, size, maps_of(size)) for size in sizes}
    wrong: list[object] = []
    start = threading.Barrier(6)

    def work(seed: int) -> None:
        start.wait()
        for i in range(120):
            size = sizes[(seed * 31 + i * 7 + i // 5) % len(sizes)]
            try:
                if not torch.equal(cache.get(generator, size, maps_of(size)), expected[size]) or len(cache) > 3:
                    wrong.append(size)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(cache) == 3


def test_compiles_without_a_graph_break(device: str) -> None:
    generator, cache = default_anchor_generator(), AnchorCache()

    @torch.compile(fullgraph=True, dynamic=False, backend="aot_eager")
    def shifted(maps: list[Tensor], height: int, width: int) -> Tensor:
        return cache.get(generator, (height, width), maps) + 1

    for size in ((64, 64), (64, 96)):
        maps = maps_of(size, device)
        assert torch.equal(shifted(maps, *size), torchvision_anchors(generator, size, maps) + 1)
    assert len(cache) == 0  # what a compiler traces is not kept


def test_a_generator_with_a_grid_of_its_own_is_called(device: str) -> None:
    class Shifted(AnchorGenerator):
        def grid_anchors(self, *arguments: object) -> list[Tensor]:
            return [anchors + 3 for anchors in super().grid_anchors(*arguments)]

    plain = default_anchor_generator()
    shifted, cache = Shifted(plain.sizes, plain.aspect_ratios), AnchorCache()
    maps = maps_of((64, 64), device)
    assert torch.equal(cache.get(shifted, (64, 64), maps), torchvision_anchors(plain, (64, 64), maps) + 3)
    assert len(cache) == 0


def test_rejects_other_levels() -> None:
    with pytest.raises(ValueError, match="the anchor generator has 5 levels, the features 4"):
        AnchorCache().get(default_anchor_generator(), (64, 64), maps_of((64, 64))[:4])
    assert not anchor_cache.has_torchvision_grid(nn.Identity())
