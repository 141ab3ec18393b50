from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from harness.compression.graph import pruning_graph
from harness.tasks import digits
from harness.tasks.digits import Digits
from harness_backends.targets import find_target
from harness_search.settings import Settings
from harness_search.space import search_space

if TYPE_CHECKING:
    from numpy.typing import NDArray


def test_splits_have_the_sizes_and_shapes_as_designed() -> None:
    task = Digits()
    sizes = [len(split) for split in (task.train(), task.validation(), task.test())]
    assert sizes == [6376, 400, 600]
    for split in (task.train(), task.validation(), task.test()):
        assert split.inputs.shape[1:] == (1, 32, 32)
        assert split.inputs.dtype == torch.float32
        assert split.labels.dtype == torch.int64
        assert set(split.labels.tolist()) == set(range(10))


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
    task = Digits()
    before = task.data_sha256()
    np.random.default_rng().normal()
    torch.rand(3)
    digits._data.cache_clear()
    assert task.data_sha256() == before


def test_the_hash_sees_a_single_pixel_and_a_single_label(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Digits().data_sha256()
    for which in (0, 1):
        changed = {name: (x.copy(), y.copy()) for name, (x, y) in digits._data().items()}
        changed["test"][which].flat[-1] += 1
        monkeypatch.setattr(digits, "_data", lambda changed=changed: changed)
        assert Digits().data_sha256() != before
        monkeypatch.undo()


def test_the_dense_network_begins_with_the_same_weights_at_every_call() -> None:
    first = Digits().model().state_dict()
    torch.rand(3)
    again = Digits().model().state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_making_the_network_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Digits().model()
    assert torch.equal(torch.rand(3), expected)


def test_the_floor_needs_at_most_a_fifth_of_the_arithmetic() -> None:
    task, target = Digits(), find_target("cpu")
    graph = pruning_graph(task.model(), task.example_input(1))
    space = search_space(graph, 16, Settings(target, (), "digits"))
    floor = sum(graph.macs(space.floor()).values())
    assert floor <= sum(graph.macs(space.dense).values()) / 5


def test_every_width_is_whole_granules() -> None:
    task = Digits()
    graph = pruning_graph(task.model(), task.example_input(1))
    assert sorted(set(graph.dense_widths().values())) == [64, 128, 192]
    assert "head" not in graph.dense_widths()
