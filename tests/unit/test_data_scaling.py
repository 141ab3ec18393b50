from __future__ import annotations

import pytest
import torch

from harness.data import scaling
from harness.data.scaling import find_scale
from harness.data.split import Split
from harness.errors import ConfigError

IMAGES = torch.randint(0, 256, (50, 3, 6, 5), dtype=torch.uint8,
                       generator=torch.Generator().manual_seed(0))  # fmt: skip
NUMBERS = torch.randn(50, 4, generator=torch.Generator().manual_seed(1)) * 3 + 1e4


def split(inputs, rows=None):
    return Split(inputs, torch.zeros(len(inputs)), rows=rows)


def test_auto_is_the_training_rows_own_mean_and_deviation():
    rows = torch.arange(10, 40)
    scale = find_scale(split(IMAGES, rows), "auto")
    values = IMAGES[rows].double() / 255
    assert scale.mean == pytest.approx(values.mean((0, 2, 3)).tolist(), rel=1e-5)
    assert scale.std == pytest.approx(values.std((0, 2, 3), unbiased=False).tolist(), rel=1e-5)
    assert scale.factor == 1 / 255


def test_auto_per_feature_even_far_from_zero():
    scale = find_scale(split(NUMBERS), "auto")
    deviations = NUMBERS.double().std(0, unbiased=False).tolist()
    assert scale.std == pytest.approx(deviations, rel=1e-4)
    assert scale.factor == 1


@pytest.mark.parametrize(
    ("mean", "deviation"),
    [(101325.45, 0.2), (-101325.45, 0.2), (1.7e9, 1000), (3e-9, 1e-9), (0, 1e7), (0.5, 1e-5)],
)
def test_auto_is_right_wherever_float32_tells_values_apart(mean, deviation):
    numbers = torch.randn(5000, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    stored = (numbers * deviation + mean).float()
    scale = find_scale(split(stored), "auto")
    assert scale.mean[0] == pytest.approx(stored.double().mean().item(), abs=2e-6 * deviation)
    assert scale.std[0] == pytest.approx(stored.double().std().item(), rel=1e-3)
    scaled = scale(stored).double()
    step = 1.2e-7 * abs(mean) / deviation  # of the mean, which is float32 there
    assert abs(scaled.mean().item()) <= 1e-4 + step


def test_values_that_float32_hardly_tells_apart_stay_small():
    seconds = (1.7e9 + torch.arange(100, dtype=torch.float64)[:, None]).float()
    assert len(seconds.unique()) == 2
    scale = find_scale(split(seconds), "auto")
    assert scale(seconds).abs().max() <= 1


def test_features_that_never_vary_have_deviation_one():
    constant = torch.full((50, 2), 0.1)
    scale = find_scale(split(constant), "auto")
    assert (scale.std, scale.mean) == ((1.0, 1.0), pytest.approx((0.1, 0.1)))


def test_a_part_of_many_samples_is_enough(monkeypatch):
    monkeypatch.setattr(scaling, "_MOST_VALUES", 50 * 90 // 5)
    scale = find_scale(split(IMAGES), "auto")
    expected = (IMAGES[::5].double() / 255).mean((0, 2, 3)).tolist()
    assert scale.mean == pytest.approx(expected, rel=1e-5)


def test_named_and_explicit_scales():
    images = split(IMAGES)
    assert find_scale(images, "imagenet").mean == (0.485, 0.456, 0.406)
    assert find_scale(images, "cifar10").std == (0.2470, 0.2435, 0.2616)
    half = find_scale(images, "0.5")
    assert (half.mean, half.std) == ((0.5,), (0.5,))
    assert find_scale(images, "0:1:2/3:4:5").std == (3, 4, 5)
    assert find_scale(images, "none")(IMAGES).max() == 1


def test_numbers_without_a_scale():
    assert find_scale(split(NUMBERS), "none") is None
    assert find_scale(split(torch.zeros(50, 4, dtype=torch.int64)), "auto") is None


def test_scales_that_do_not_fit():
    grey = split(IMAGES[:, :1])
    with pytest.raises(ConfigError, match=r"3 means.*have 1 channels"):
        find_scale(grey, "imagenet")
    with pytest.raises(ConfigError, match="2 means and 3 deviations"):
        find_scale(split(IMAGES), "1:2/1:2:3")
    with pytest.raises(ConfigError, match="Token numbers"):
        find_scale(split(torch.zeros(50, 4, dtype=torch.int64)), "0.5")
