from __future__ import annotations

import sys
import textwrap

import numpy as np
import pytest
import torch

from harness.data.spec import load_data
from harness.errors import ConfigError

HEAD = """
import random
import numpy as np, torch
from PIL import Image

X = torch.arange(300.).view(100, 3)
Y = torch.arange(100) % 4

class Items(torch.utils.data.Dataset):
    def __init__(self, n=100, noise=0.0, target=int, image=False):
        self.n, self.noise, self.target, self.image = n, noise, target, image
    def __len__(self):
        return self.n
    def __getitem__(self, i):
        x = X[i] + self.noise * random.random()
        if self.image:
            x = Image.fromarray(np.full((4, 6, 3), i, np.uint8))
        return x, self.target(Y[i])
"""


X = torch.arange(300.0).view(100, 3)


@pytest.fixture
def factory(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(body, name="make"):
        path = tmp_path / "own.py"
        path.write_text(HEAD + textwrap.dedent(body))
        return f"{path}:{name}"

    return write


def refuse(spec, *words):
    with pytest.raises(ConfigError) as caught:
        load_data(spec)
    for word in words:
        assert word in str(caught.value)


def test_one_data_set(factory):
    data = load_data(factory("def make(): return Items()"))
    assert (data.name, data.kind, data.outputs) == ("make", "classification", 4)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [70, 15, 15]
    expected = torch.arange(300.0).view(100, 3)[data.train.rows]
    assert torch.equal(data.train.batch(torch.arange(70)), expected)
    assert any("read once" in note for note in data.notes)


def test_a_name_that_is_a_data_set_itself(factory):
    assert len(load_data(factory("make = Items()")).train) == 70


def test_three_or_named_data_sets(factory):
    three = load_data(factory("def make(): return Items(), Items(20), Items(30)"))
    assert [len(s) for s in (three.train, three.validation, three.test)] == [100, 20, 30]
    assert any("20 of 20 validation samples are also" in note for note in three.notes)
    named = load_data(factory("def make(): return {'train': Items(), 'val': Items(20)}"))
    assert [len(s) for s in (named.train, named.validation, named.test)] == [85, 20, 15]


def test_pairs_of_arrays(factory):
    data = load_data(factory("def make(): return X.numpy(), X[:, :1].numpy()"))
    assert (data.kind, data.outputs, data.notes) == ("regression", 1, ())


def test_targets_that_only_the_user_knows(factory):
    several = load_data(factory("def make(): return X, (X[:, 0], Y)"))
    assert (several.kind, several.outputs) == ("other", None)
    first, second = several.train.targets_of()
    assert (first.dtype, second.dtype) == (torch.float32, torch.int64)
    items = load_data(factory("def make(): return Items(target=lambda y: (y, torch.zeros(2)))"))
    assert [part.shape for part in items.train.targets_of()] == [(70,), (70, 2)]
    maps = load_data(factory("def make(): return X, torch.zeros(100, 3, 3, dtype=torch.int64)"))
    assert maps.kind == "other"


def test_pillow_images_and_texts(factory):
    spec = factory("def make(): return Items(image=True, target=lambda y: 'abcd'[y])")
    data = load_data(spec)
    assert data.train.inputs.dtype == torch.uint8
    assert data.train.sample_shape == (3, 4, 6)
    assert data.classes == tuple("abcd")
    assert load_data(f"{spec},size=8,channels=1").train.sample_shape == (1, 8, 8)


def test_pillow_images_as_cameras_and_scanners_make_them(factory):
    turned = factory("""
        def make():
            images = [Image.new("L", (4, 3), i) for i in range(100)]
            for image in images:
                image.getexif()[0x0112] = 6
            return [(image, i % 2) for i, image in enumerate(images)]
    """)
    assert load_data(turned).train.sample_shape == (1, 4, 3)
    wide = factory("""
        def make():
            wide = [np.full((5, 6), 257 * i, np.uint16) for i in range(100)]
            return [(Image.fromarray(one), i % 2) for i, one in enumerate(wide)]
    """)
    data = load_data(wide)
    assert data.train.sample_shape == (1, 5, 6)
    assert torch.equal(data.train.inputs[:, 0, 0, 0], torch.arange(100, dtype=torch.uint8))


@pytest.mark.parametrize("option", ["", ",layout=nhwc", ",layout=nchw"])
def test_pillow_images_keep_their_sides_whatever_the_layout(factory, option):
    spec = factory("""
        def make():
            pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
            return [(Image.fromarray(pixels + i), i % 2) for i in range(100)]
    """)
    inputs = load_data(spec + option).train.inputs
    expected = torch.arange(24, dtype=torch.uint8).view(2, 4, 3).permute(2, 0, 1)
    assert torch.equal(inputs[0], expected)


@pytest.mark.parametrize(
    ("targets", "classes"),
    [
        ("np.arange(100).astype(object) % 11", tuple(map(str, range(11)))),
        ("np.array([True, False] * 50, object)", ("False", "True")),
        ("np.array([2.0, 10] * 50, object).astype(int)", ("2", "10")),
        ("np.array(['b', 'a'] * 50, object)", ("a", "b")),
        ("np.array(['ä'.encode(), b'b'] * 50)", ("b", "ä")),
        ("np.array(['b', 'a'] * 50, np.dtypes.StringDType())", ("a", "b")),
    ],
)
def test_targets_that_are_objects_are_what_they_hold(factory, targets, classes):
    pair = load_data(factory(f"def make(): return X, {targets}"))
    items = load_data(factory(f"def make(): return list(zip(X, {targets}))"))
    assert pair.classes == items.classes == classes


def test_objects_that_are_fractions_are_values(factory):
    data = load_data(factory("def make(): return X, np.array([0.5, 2] * 50, object)"))
    assert (data.kind, data.outputs) == ("regression", 1)


def test_number_types_that_numpy_lacks(factory):
    pair = load_data(factory("def make(): return X.bfloat16(), X[:, 0].bfloat16()"))
    items = load_data(factory("def make(): return [(x.bfloat16(), x[0].bfloat16()) for x in X]"))
    sparse = load_data(factory("def make(): return X.bfloat16().to_sparse(), X[:, 0].bfloat16()"))
    for data in (pair, items, sparse):
        assert torch.equal(data.train.inputs, X.bfloat16().float())


def test_randomness_is_the_same_every_time_and_told(factory):
    spec = factory("def make(): return Items(noise=1.0)")
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, second = load_data(spec), load_data(spec)
    assert first.sha256 == second.sha256
    assert any("randomness is now frozen" in note for note in first.notes)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])


def test_finished_data_pass(factory):
    spec = factory("""
        def make():
            from harness.data.spec import load_data
            return load_data("digits")
    """)
    assert load_data(spec).name == "digits-8x8"
    assert load_data(spec, augment="shift").train.augmentation.shift


def test_keys_that_finished_data_would_ignore_are_refused(factory):
    spec = factory("""
        def make():
            from harness.data.spec import load_data
            return load_data("digits")
    """)
    refuse(f"{spec},size=8,normalize=none,test_fraction=0.2",
           "split and scaled already", "Leave out size=, normalize=, test_fraction=")  # fmt: skip


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            "def make(): return {'train': Items(), 'val': Items(20), 'valid': Items(20)}",
            ["several data sets for one split", "'val', 'valid'"],
        ),
        ("def make(): return 5", ["one data set", "Received: int"]),
        ("def make(): return {'training': Items()}", ["a dict with 'training'"]),
        ("def make(): return Items(), Items()", ["tuple of 2: Items, Items"]),
        ("def make(): return torch.utils.data.DataLoader(Items())", ["return its data set"]),
        ("def make(): return [1, 2]", ["item 0", "(input, target)", "int"]),
        ("def make(): return [{'image': 1, 'label': 2}]", ["a dict with 'image', 'label'"]),
        ("def make(): return [(object(), 1)] * 99", ["as input", "object"]),
        ("def make(): return [((X[0], X[0, :2]), 1)] * 99", ["input of item 0", "tuple"]),
        ("def make(): return [(X[0], [[1], [1, 2]])] * 99", ["targets of", "list", "no array"]),
        ("def make(): return [(X[0], object())] * 99", ["targets", "object"]),
        ("def make(): return [(X[i], i or 'a') for i in range(99)]", ["all texts", "int, str"]),
        ("def make(): return [(X[0], 'a'), (X[1], None)] * 50", ["50 of 100 are missing", "1, 3,"]),
        ("def make(): return [(X[0], 'a'), (X[1], float('nan'))] * 50", ["50 of 100 are missing"]),
        (
            "def make(): return X, np.array(['a', 'b', None, 'a'] * 25, object)",
            ["25 of 100 are missing", "samples 2, 6"],
        ),
        ("def make(): return X, np.array(['a', 1] * 50, object)", ["all texts", "int, str"]),
        ("def make(): return X, np.array([b'a', 'ä'.encode('latin-1')] * 50)", ["no UTF-8"]),
        (
            "def make(): return [(Image.new('L', (3, 1)), 0), (X[:1, None], 1)] * 50",
            ["50 of 100 inputs", "Pillow images"],
        ),
        ("def make(): return [(X[0, :i], 1) for i in (1, 2)]", ["differ in shape: [1], [2]"]),
        ("def make(): return [(X[0], X[:i]) for i in (1, 2)]", ["targets", "differ in shape"]),
        ("def make(): return []", ["is empty"]),
        ("def make(): return X, Y[:5]", ["100 inputs", "[5]"]),
        ("def make(): return Items(200)", ["item 100", "own.py:", "IndexError"]),
        ("def make(): return 1 / 0", ["ZeroDivisionError", "own.py:"]),
        ("def make(n): return n", ["TypeError", "missing 1 required"]),
        ("def other(): pass", ["has no 'make'"]),
        ("import nowhere", ["own.py:", "No module named 'nowhere'"]),
    ],
)
def test_bad_functions(factory, body, words):
    refuse(factory(body), *words)


def test_numbers_are_not_augmented(factory):
    with pytest.raises(ConfigError, match=r"`--augment` needs images.* of shape \[3\]"):
        load_data(factory("def make(): return Items()"), augment="flip")
