from __future__ import annotations

import torch

from harness.data.augment import Augmentation
from harness.data.split import Scale, Split

IMAGES = torch.arange(5 * 2 * 3 * 4, dtype=torch.uint8).view(5, 2, 3, 4)
SPLIT = Split(IMAGES, torch.arange(5), scale=Scale((0.1, 0.2), (2.0, 4.0), 1 / 255))


def test_a_batch_is_scaled_per_channel():
    rows = torch.tensor([3, 1])
    batch = SPLIT.batch(rows)
    assert batch.dtype == torch.float32
    torch.testing.assert_close(batch[:, 0], (IMAGES[rows, 0] / 255 - 0.1) / 2)
    torch.testing.assert_close(batch[:, 1], (IMAGES[rows, 1] / 255 - 0.2) / 4)
    batch.zero_()  # a copy: the stored samples stay
    assert IMAGES[3].sum() > 0


def test_a_part_of_a_part_is_of_the_stored_samples():
    part = SPLIT.take(torch.tensor([4, 2, 0])).take(torch.tensor([2, 1]))
    assert part.rows.tolist() == [0, 2]
    assert part.targets_of().tolist() == [0, 2]
    assert part.targets_of(torch.tensor([1])).tolist() == [2]
    assert torch.equal(part.batch(torch.tensor([1])), SPLIT.batch(torch.tensor([2])))
    assert len(part) == 2


def test_chunks_are_all_samples_in_order():
    chunks = list(SPLIT.chunks(size=2))
    assert [len(chunk) for chunk in chunks] == [2, 2, 1]
    assert torch.equal(torch.cat(chunks), SPLIT.batch(torch.arange(5)))


def test_a_part_sees_the_views_that_the_whole_sees():
    images = torch.randint(0, 256, (9, 1, 16, 16), dtype=torch.uint8)
    whole = Split(images, torch.arange(9), augmentation=Augmentation(shift=True, flip=True))
    part = whole.take(torch.tensor([7, 3]))
    assert torch.equal(part.batch(torch.arange(2), 5), whole.batch(torch.tensor([7, 3]), 5))
    assert torch.equal(whole.batch(torch.arange(9)), images)  # no view, no augmentation


def test_channels_last_and_several_targets():
    split = Split(IMAGES, (torch.arange(5), torch.ones(5, 2)), nhwc=True)
    assert split.sample_shape == (3, 4, 2)
    assert torch.equal(split.batch(torch.arange(5)), IMAGES.permute(0, 2, 3, 1))
    first, second = split.targets_of(torch.tensor([4]))
    assert (first.tolist(), second.shape) == ([4], (1, 2))
