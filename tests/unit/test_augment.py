from __future__ import annotations

import pytest
import torch

from harness.data.augment import Augmentation, parse_augmentation
from harness.errors import ConfigError

IMAGES = torch.randint(0, 256, (300, 3, 16, 24), dtype=torch.uint8,
                       generator=torch.Generator().manual_seed(0))  # fmt: skip
ALL = torch.arange(len(IMAGES))


def test_an_image_looks_the_same_in_whatever_batch_it_is():
    augmentation = Augmentation(flip=True, shift=True, cutout=True, seed=3)
    whole = augmentation(IMAGES, ALL, view=4)
    rows = torch.tensor([7, 250, 7, 0])
    assert torch.equal(augmentation(IMAGES, rows, view=4), whole[rows])
    assert torch.equal(augmentation(IMAGES[:8], torch.tensor([7]), view=4)[0], whole[7])


def test_views_and_seeds_differ():
    one, two = (Augmentation(shift=True, seed=0)(IMAGES, ALL, view) for view in (0, 1))
    other = Augmentation(shift=True, seed=1)(IMAGES, ALL, 0)
    for different in (two, other):
        assert (one != different).flatten(1).any(1).float().mean() > 0.8
    assert one.dtype == IMAGES.dtype


def test_half_of_the_images_are_mirrored():
    found = Augmentation(flip=True)(IMAGES, ALL, 0)
    mirrored = (found == IMAGES.flip(3)).flatten(1).all(1)
    same = (found == IMAGES).flatten(1).all(1)
    assert (mirrored ^ same).all()
    assert 0.4 < mirrored.float().mean() < 0.6


def test_shifts_are_of_up_to_an_eighth_and_repeat_the_edge():
    ys, xs = torch.meshgrid(torch.arange(16), torch.arange(24), indexing="ij")
    places = torch.stack([ys, xs]).expand(300, -1, -1, -1).contiguous()
    found = Augmentation(shift=True)(places, ALL, 2)
    down = found[:, 0, 8, 12] - 8
    right = found[:, 1, 8, 12] - 12
    assert set(down.tolist()) == set(range(-2, 3))
    assert set(right.tolist()) == set(range(-3, 4))
    expected_y = (ys + down[:, None, None]).clamp(0, 15)
    expected_x = (xs + right[:, None, None]).clamp(0, 23)
    assert torch.equal(found, torch.stack([expected_y, expected_x], 1))


def test_cutout_blanks_a_square_with_the_mean():
    found = Augmentation(cutout=True)(IMAGES, ALL, 0)
    changed = (found != IMAGES).any(1)
    tall, wide = changed.any(2).sum(1), changed.any(1).sum(1)
    assert (tall == 4).float().mean() > 0.95  # a quarter of 16; a pixel may be the mean already
    assert (wide == 4).float().mean() > 0.95
    row = int(changed[0].any(1).nonzero()[0]), int(changed[0].any(0).nonzero()[0])
    assert found[0, 0, row[0], row[1]] == int(IMAGES[0].float().mean())


def test_draws_are_even_and_do_not_go_together():
    draws = Augmentation()._draws(torch.arange(100_000), 0)
    assert draws.min() >= 0
    assert draws.max() < 1
    torch.testing.assert_close(draws.mean(0), torch.full((5,), 0.5).double(), atol=0.005, rtol=0)
    off_diagonal = torch.corrcoef(draws.T) - torch.eye(5)
    assert off_diagonal.abs().max() < 0.015
    following = Augmentation()._draws(torch.arange(100_000), 1)
    assert torch.corrcoef(torch.stack([draws[:, 0], following[:, 0]]))[0, 1].abs() < 0.015


def test_draws_are_those_of_splitmix64():
    def mixed(x):
        x = (x + 0x9E3779B97F4A7C15) % 2**64
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return x ^ (x >> 31)

    key = mixed((mixed(9) + 6) % 2**64)
    expected = [(mixed(mixed(5 * 123 + i) ^ key) >> 40) / 2**24 for i in range(5)]
    assert Augmentation(seed=9)._draws(torch.tensor([123]), 6)[0].tolist() == expected


def test_names():
    assert parse_augmentation("none", "--augment") is None
    assert parse_augmentation("flip + cutout", "--augment") == Augmentation(flip=True, cutout=True)
    with pytest.raises(ConfigError, match=r"--augment must be.*'flip\+spin'"):
        parse_augmentation("flip+spin", "--augment")
