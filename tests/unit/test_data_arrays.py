from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
import torch

from harness.data.spec import load_data
from harness.errors import ConfigError
from support.datafiles import pictures

LABELS = np.arange(100) % 4


def npz(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def refuse(spec, *words):
    with pytest.raises(ConfigError) as caught:
        load_data(str(spec))
    for word in words:
        assert word in str(caught.value)


def test_images_with_their_channels_first_or_last(tmp_path):
    images = pictures(100)
    last = load_data(npz(tmp_path / "a.npz", x=images, y=LABELS))
    first = load_data(npz(tmp_path / "b.npz", inputs=images.transpose(0, 3, 1, 2), labels=LABELS))
    assert last.train.sample_shape == (3, 8, 8)
    assert torch.equal(last.train.inputs, first.train.inputs)
    assert (last.kind, last.outputs) == ("classification", 4)
    assert last.sha256 == first.sha256


def test_layout_settles_what_is_ambiguous(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (100, 3, 8, 3), dtype=np.uint8)
    path = npz(tmp_path / "a.npz", x=images, y=LABELS)
    refuse(path, "both ends look like channels", "layout=nchw")
    assert load_data(f"{path},layout=nchw").train.sample_shape == (3, 8, 3)
    assert load_data(f"{path},layout=nhwc").train.sample_shape == (3, 3, 8)
    odd = npz(tmp_path / "b.npz", x=images[:, :2].repeat(3, 3), y=LABELS)
    refuse(odd, "neither end looks like channels", "[100, 2, 8, 9]")


def test_grey_images_as_keras_has_them(tmp_path):
    images = pictures(160, channels=1)
    path = npz(
        tmp_path / "mnist.npz", x_train=images[:100], y_train=LABELS, x_test=images[100:],
        y_test=LABELS[:60],
    )  # fmt: skip
    data = load_data(path)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [85, 15, 60]
    assert data.train.sample_shape == (1, 8, 8)
    assert load_data(f"{path},size=16,channels=3").train.sample_shape == (3, 16, 16)
    assert data.origin == "validation drawn from the training split, seed 0"


@pytest.mark.parametrize("name", ["valid", "validation", "Val"])
def test_arrays_of_splits_may_be_named_otherwise(tmp_path, name):
    x, rows = pictures(100), np.arange(100)
    splits = {"train": rows[:60], name: rows[60:80], "test": rows[80:]}
    arrays = {f"x_{n}": x[r] for n, r in splits.items()}
    arrays |= {f"y_{n}": LABELS[r] for n, r in splits.items()}
    data = load_data(npz(tmp_path / "a.npz", **arrays))
    assert [len(s) for s in (data.train, data.validation, data.test)] == [60, 20, 20]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("x", "y", "x_test", "y_test"), "has x and y beside arrays of splits"),
        (("x", "y", "X_test", "Y_test"), "has x and y beside arrays of splits"),
        (("x_train", "y_train", "x_test"), "only one of x and y for the test split"),
        (("x_train", "y_train", "y_val"), "only one of x and y for the validation split"),
        (("x_train", "y_train", "x_val", "y_val", "x_valid", "y_valid"), "several arrays for the"),
        (("x_test", "y_test"), "x_train and y_train"),
    ],
)
def test_arrays_of_splits_that_do_not_go_together(tmp_path, names, words):
    arrays = {n: LABELS if n[0].lower() == "y" else pictures(100) for n in names}
    refuse(npz(tmp_path / "a.npz", **arrays), words, f"Received: {', '.join(names)}")


def test_arrays_that_are_not_asked_for_are_not_read(tmp_path):
    names = np.array(["cat", None], dtype=object)
    data = load_data(npz(tmp_path / "a.npz", x=pictures(100), y=LABELS, class_names=names))
    assert len(data.train) == 70


def test_floats_pass_as_they_are(tmp_path):
    values = np.random.default_rng(0).normal(3, 2, (100, 5))
    data = load_data(npz(tmp_path / "a.npz", x=values, y=values[:, :2]))
    assert (data.kind, data.outputs) == ("regression", 2)
    assert data.train.scale is None
    everything = torch.arange(len(data.train))
    expected = torch.from_numpy(values.astype(np.float32))[data.train.rows]
    assert torch.equal(data.train.batch(everything), expected)


def test_tokens_stay_whole_numbers(tmp_path):
    tokens = np.arange(1200).reshape(100, 12)
    data = load_data(npz(tmp_path / "a.npz", x=tokens, y=LABELS))
    assert data.train.batch(torch.arange(2)).dtype == torch.int64
    assert data.train.scale is None


def test_resizing_an_array_keeps_it_whole(tmp_path):
    images = np.zeros((100, 32, 32), np.uint8)
    images[:, :, 16:] = 255
    images[:, 0, 0] = np.arange(100)
    data = load_data(npz(tmp_path / "a.npz", x=images, y=LABELS) + ",size=8")
    assert data.train.inputs[:, 0, 4, 2].max() == 0
    assert data.train.inputs[:, 0, 4, 5].min() == 255


def test_grey_of_colour_is_its_luma(tmp_path):
    images = pictures(100)
    images[0] = (255, 0, 0)
    data = load_data(npz(tmp_path / "a.npz", x=images, y=LABELS) + ",channels=1")
    assert data.train.inputs[0].unique().tolist() == [76]  # 0.299 * 255


def test_class_numbers(tmp_path):
    images = pictures(100)
    gaps = load_data(npz(tmp_path / "a.npz", x=images, y=LABELS * 10 + 1))
    assert gaps.classes == ("1", "11", "21", "31")
    assert any("1 -> 0, 11 -> 1" in note for note in gaps.notes)
    texts = load_data(npz(tmp_path / "b.npz", x=images, y=np.array(list("wxyz"))[LABELS]))
    assert texts.classes == ("w", "x", "y", "z")
    truths = load_data(npz(tmp_path / "c.npz", x=images, y=LABELS > 1))
    assert truths.classes == ("False", "True")


def test_many_whole_numbers_are_values_unless_asked_otherwise(tmp_path):
    values = np.random.default_rng(0).normal(size=(200, 3))
    path = npz(tmp_path / "a.npz", x=values, y=np.arange(200) % 40)
    assert load_data(path).kind == "regression"
    assert load_data(f"{path},kind=classification").outputs == 40
    few = npz(tmp_path / "b.npz", x=values, y=np.arange(200) % 20)
    assert load_data(few).kind == "classification"


def test_bad_archives(tmp_path):
    x, y = pictures(100), LABELS
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK\x03\x04 no")
    refuse(broken, "no readable .npz archive")
    refuse(npz(tmp_path / "a.npz", images=x, y=y), "x and y", "images, y")
    refuse(npz(tmp_path / "b.npz", x=x, y=y[:50]), "as long as each other", "[50]")
    refuse(npz(tmp_path / "c.npz", x=np.array([{}] * 100), y=y), "save plain arrays")
    refuse(npz(tmp_path / "d.npz", x=np.array(["a"] * 100), y=y), "two dimensions")
    refuse(npz(tmp_path / "e.npz", x=np.full((100, 3), "a"), y=y), "must hold numbers")
    refuse(npz(tmp_path / "f.npz", x=x.astype(np.int32) * 3, y=y), "0 to 255")
    bad = np.ones((100, 3))
    bad[7, 1] = np.nan
    bad[8, 1] = 1e300
    refuse(npz(tmp_path / "g.npz", x=bad, y=y), "2 of 300 values are NaN or infinite")
    refuse(npz(tmp_path / "h.npz", x=np.ones((100, 3)), y=y) + ",size=8", "images of uint8")
    refuse(npz(tmp_path / "i.npz", x=x.repeat(2, 3)[..., :4], y=y) + ",channels=1", "4 channels")
    single = tmp_path / "single.npz"
    with single.open("wb") as file:
        np.save(file, x)
    refuse(single, "single array")


def test_bad_targets(tmp_path):
    x = np.random.default_rng(0).normal(size=(100, 3))
    y = x[:, 0].copy()
    y[5] = np.inf
    refuse(npz(tmp_path / "a.npz", x=x, y=y), "1 of 100 targets", "sample 5")
    refuse(npz(tmp_path / "h.npz", x=x, y=np.where(np.isinf(y), y, 1.0)) + ",kind=classification",
           "1 of 100 targets", "sample 5")  # fmt: skip
    fractions = npz(tmp_path / "b.npz", x=x, y=x[:, 0]) + ",kind=classification"
    refuse(fractions, "whole numbers", "kind=regression")
    refuse(npz(tmp_path / "c.npz", x=x, y=np.full(100, "a")), "at least two classes")
    names = np.array([f"n{i}" for i in range(100)])
    refuse(npz(tmp_path / "d.npz", x=x, y=names), "100 different values in 100 samples")
    refuse(npz(tmp_path / "e.npz", x=x, y=names) + ",kind=regression", "that are numbers")
    refuse(npz(tmp_path / "f.npz", x=x, y=x) + ",kind=classification", "one target per sample")
    refuse(npz(tmp_path / "g.npz", x=x[:0], y=y[:0]), "no samples")


def test_splits_of_different_shapes(tmp_path):
    path = npz(
        tmp_path / "a.npz", x_train=pictures(100), y_train=LABELS,
        x_test=pictures(20, side=9), y_test=LABELS[:20],
    )  # fmt: skip
    refuse(path, "one shape and type", "[3, 8, 8]", "[3, 9, 9]", "size=")


def idx(path, array):
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    data = head + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture
def mnist(tmp_path):
    for prefix, count in (("train", 100), ("t10k", 20)):
        images = pictures(count, count, channels=1)
        idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", images)
        idx(tmp_path / f"{prefix}-labels-idx1-ubyte", LABELS[:count].astype(np.uint8))
    return tmp_path


def test_files_of_mnists_format(mnist):
    data = load_data(f"fashion-mnist:{mnist}")
    assert [len(s) for s in (data.train, data.validation, data.test)] == [85, 15, 20]
    expected = torch.from_numpy(pictures(20, 20, channels=1))[:, None]
    assert torch.equal(data.test.inputs, expected)


def test_bad_idx_files(mnist):
    labels = mnist / "t10k-labels-idx1-ubyte"
    idx(labels, LABELS[:19].astype(np.uint8))
    refuse(f"fashion-mnist:{mnist}", "20 images and 19 labels")
    labels.write_bytes(b"\0\0\x0d\x01" + bytes(8))
    refuse(f"fashion-mnist:{mnist}", "no IDX file", "00 00 0d 01")
    labels.write_bytes(b"\0\0\x08\x01" + struct.pack(">I", 20) + bytes(7))
    refuse(f"fashion-mnist:{mnist}", "should hold 20 bytes and holds 7")
    (mnist / "train-images-idx3-ubyte.gz").write_bytes(b"no gzip")
    refuse(f"fashion-mnist:{mnist}", "can't be read")
    labels.unlink()
    (mnist / "train-images-idx3-ubyte.gz").unlink()
    refuse(f"fashion-mnist:{mnist}", "no train-images-idx3-ubyte.gz")


def test_fashion_mnist_that_is_not_installed(tmp_path, monkeypatch):
    absent = str(tmp_path / "absent")
    monkeypatch.setattr("harness.data.sources.FASHION_MNIST", absent)
    monkeypatch.setattr("harness.data.readers.idx.FASHION_MNIST", absent)
    refuse("fashion-mnist", "apt install dataset-fashion-mnist")


def test_digits():
    data = load_data("digits")
    assert (data.name, data.outputs, data.train.sample_shape) == ("digits-8x8", 10, (1, 8, 8))
    assert int(data.train.inputs.max()) == 255


def test_classes_that_look_like_values_are_told(tmp_path):
    rows = np.random.default_rng(0).normal(size=(100, 3))
    path = npz(tmp_path / "a.npz", x=rows, y=LABELS.astype(float))
    found = load_data(path)
    assert found.kind == "regression"
    assert any("4 different whole numbers" in note for note in found.notes)
    assert load_data(f"{path},kind=classification").notes == ()
    hot = load_data(npz(tmp_path / "c.npz", x=rows, y=np.eye(4)[LABELS]))
    assert (hot.outputs, hot.notes) == (4, ())
    values = npz(tmp_path / "b.npz", x=rows, y=rows[:, 0])
    assert not any("whole numbers" in note for note in load_data(values).notes)
