"""Which batches continue a run exactly."""

from __future__ import annotations

import pytest

from retina_ops.training.batches import Batches, check_resumable

FOUR_BY_FOUR = Batches(batch_size=4, processes=4, accumulate=1)


@pytest.mark.parametrize("now", [FOUR_BY_FOUR, Batches(8, 2, 1), Batches(16, 1, 1), Batches(2, 8, 1)])
@pytest.mark.parametrize("in_epoch", [False, True])
def test_the_same_images_per_update_continue(now: Batches, in_epoch: bool) -> None:
    check_resumable(FOUR_BY_FOUR, now, in_epoch=in_epoch)


def test_accumulation_may_change_between_epochs_only() -> None:
    check_resumable(FOUR_BY_FOUR, Batches(8, 1, 2), in_epoch=False)
    with pytest.raises(ValueError, match=r"with 1 process use --batch-size 16 --optimizer\.accumulate 1"):
        check_resumable(FOUR_BY_FOUR, Batches(8, 1, 2), in_epoch=True)


@pytest.mark.parametrize(
    ("now", "advice"),
    [
        (Batches(4, 1, 1), "with 1 process use --batch-size 16 --optimizer.accumulate 1"),
        (Batches(4, 2, 1), "with 2 processes use --batch-size 8 --optimizer.accumulate 1"),
        (Batches(4, 3, 1), "with 3 processes use a number of processes that divides 16"),
        (Batches(4, 4, 2), "with 4 processes use --batch-size 4 --optimizer.accumulate 1"),
    ],
)
@pytest.mark.parametrize("in_epoch", [False, True])
def test_others_are_refused_with_the_batch_size_that_would_do(now: Batches, advice: str, in_epoch: bool) -> None:
    with pytest.raises(ValueError, match="takes 16 images per update") as raised:
        check_resumable(FOUR_BY_FOUR, now, in_epoch=in_epoch)
    assert str(raised.value).endswith(advice) and "\n" not in str(raised.value)
