from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from harness.compression.pruning.dependency.graph import pruning_graph
from harness.compression.pruning.importance import CRITERIA
from harness.tasks import digits
from harness.tasks.digits import digits as digits_task
from harness.tasks.digits import digits_data
from harness_backends.targets import find_target
from harness_search.settings import Settings
from harness_search.space import search_space

if TYPE_CHECKING:
    from numpy.typing import NDArray


def test_splits_have_the_sizes_and_shapes_as_designed() -> None:
    data = digits_data()
    splits = (data.train, data.validation, data.test)
    assert [len(split) for split in splits] == [6376, 400, 600]
    assert (data.kind, data.outputs, len(data.classes)) == ("classification", 10, 10)
    for split in splits:
        assert split.sample_shape == (1, 32, 32)
        assert (split.inputs.dtype, split.batch(torch.arange(2)).dtype) == (
            torch.uint8, torch.float32,
        )  # fmt: skip
        labels = split.targets_of()
        assert isinstance(labels, torch.Tensor)
        assert labels.dtype == torch.int64
        assert set(labels.tolist()) == set(range(10))


def test_grey_levels_are_scaled_to_about_zero_mean() -> None:
    everything = torch.cat(list(digits_data().train.chunks()))
    assert abs(float(everything.mean())) < 0.3
    assert 0.5 < float(everything.std()) < 1.5


def test_no_image_is_in_two_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    def keep(image: NDArray[Any], rng: np.random.Generator) -> NDArray[np.uint8]:
        return np.asarray(np.round(image * 16), np.uint8)

    monkeypatch.setattr(digits, "_corrupt", keep)
    parts = {
        name: {image.tobytes() for image in images}
        for name, (images, _) in digits._data.__wrapped__().items()
    }
    assert not parts["train"] & parts["validation"]
    assert not parts["train"] & parts["test"]
    assert not parts["validation"] & parts["test"]
    source = {np.asarray(image, np.uint8).tobytes() for image in load_digits().images}
    assert set.union(*parts.values()) == source


def test_labels_go_with_their_images(monkeypatch: pytest.MonkeyPatch) -> None:
    def keep(image: NDArray[Any], rng: np.random.Generator) -> NDArray[np.uint8]:
        return np.asarray(np.round(image * 16), np.uint8)

    monkeypatch.setattr(digits, "_corrupt", keep)
    known = load_digits()
    label_of = {
        np.asarray(image, np.uint8).tobytes(): label
        for image, label in zip(known.images, known.target, strict=True)
    }
    for images, labels in digits._data.__wrapped__().values():
        assert [label_of[image.tobytes()] for image in images] == labels.tolist()


def test_the_data_is_the_same_whatever_was_drawn_before() -> None:
    before = digits_data().sha256
    np.random.default_rng().normal()
    torch.rand(3)
    digits._data.cache_clear()
    assert digits_data().sha256 == before


def test_the_hash_sees_a_single_pixel_and_a_single_label(monkeypatch: pytest.MonkeyPatch) -> None:
    before = digits_data().sha256
    for which in (0, 1):
        changed = {name: (x.copy(), y.copy()) for name, (x, y) in digits._data().items()}
        changed["test"][which].flat[-1] += 1
        monkeypatch.setattr(digits, "_data", lambda changed=changed: changed)
        assert digits_data().sha256 != before
        monkeypatch.undo()


def test_the_dense_network_begins_with_the_same_weights_at_every_call() -> None:
    first = digits_task().model().state_dict()
    torch.rand(3)
    again = digits_task().model().state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_making_the_network_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    digits_task()
    assert torch.equal(torch.rand(3), expected)


def test_the_floor_needs_at_most_a_fifth_of_the_arithmetic() -> None:
    task, target = digits_task(), find_target("cpu")
    graph = pruning_graph(task.model(), task.example_input(1))
    space = search_space(graph, 16, Settings(target, ()), CRITERIA, uses_temperature=True)
    floor = sum(graph.macs(space.floor()).values())
    assert floor <= sum(graph.macs(space.dense).values()) / 5


def test_every_width_is_whole_granules() -> None:
    task = digits_task()
    graph = pruning_graph(task.model(), task.example_input(1))
    assert sorted(set(graph.dense_widths().values())) == [64, 128, 192]
    assert "head" not in graph.dense_widths()
