from __future__ import annotations

import io
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from harness.data import encoded as encoded_module
from harness.data.cache import cached_images
from harness.data.images import ImageForm, decode, look
from harness.data.spec import load_data
from harness.errors import ConfigError
from support.datafiles import encoded, image_folder, parquet, pictures


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "datasets"


def stored(split):
    return {tuple(row.tolist()) for row in split.inputs[_rows(split)].flatten(1)}


def _rows(split):
    return torch.arange(len(split)) if split.rows is None else split.rows


def test_an_image_folder_end_to_end(tmp_path):
    data = load_data(str(image_folder(tmp_path / "pets", 50, "ab")))
    assert (data.name, data.kind, data.outputs, data.classes) == (
        "pets", "classification", 2, ("a", "b"))  # fmt: skip
    assert [len(s) for s in (data.train, data.validation, data.test)] == [70, 15, 15]
    assert data.train.sample_shape == (3, 8, 8)
    images = pictures(100).transpose(0, 3, 1, 2)
    everything = stored(data.train) | stored(data.validation) | stored(data.test)
    assert everything == {tuple(one.ravel().tolist()) for one in images}
    of_pixels = {tuple(one.ravel().tolist()): i % 2 for i, one in enumerate(images)}
    rows = torch.arange(len(data.train))
    for image, target in zip(
        data.train.inputs[_rows(data.train)].flatten(1), data.train.targets_of(rows), strict=True
    ):
        assert of_pixels[tuple(image.tolist())] == target
    batch = data.train.batch(rows)
    torch.testing.assert_close(batch.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        batch.std((0, 2, 3), unbiased=False), torch.ones(3), atol=1e-4, rtol=0
    )
    assert "70 train, 15 validation, 15 test; 2 classes; 3x8x8 images" in data.description


def test_splits_that_are_folders(tmp_path):
    for i, name in enumerate(("train", "valid", "test")):
        image_folder(tmp_path / name, 12, "ab", seed=i)
    data = load_data(str(tmp_path))
    assert [len(s) for s in (data.train, data.validation, data.test)] == [24, 24, 24]
    assert data.origin == "given"
    explicit = load_data(f"train={tmp_path}/train,val={tmp_path}/valid,test={tmp_path}/test")
    assert explicit.sha256 == data.sha256


def test_folders_of_splits_may_be_spelt_otherwise(tmp_path):
    root = tmp_path / "svhn"
    for i, name in enumerate(("Training", "VAL", "Testing")):
        image_folder(root / name, 12, "ab", seed=i)
    data = load_data(str(root))
    assert (data.origin, data.classes) == ("given", ("a", "b"))
    image_folder(root / "extra", 12, "ab", seed=3)
    refuse(root, "beside them: extra", f"train={root}/Training")


@pytest.mark.parametrize("names", [("bus", "train"), ("test", "other"), ("Test", "val")])
def test_classes_may_be_called_as_splits_are(tmp_path, names):
    for i, name in enumerate(names):
        image_folder(tmp_path, 50, [name], seed=i)
    assert load_data(str(tmp_path)).classes == tuple(sorted(names))


def test_a_class_called_train_may_have_folders_as_the_others_do(tmp_path):
    for i, name in enumerate(("bus", "car", "train")):
        image_folder(tmp_path / name, 12, ("day", "night"), seed=i)
    assert load_data(str(tmp_path)).classes == ("bus", "car", "train")


def test_a_test_split_that_is_not_given_comes_out_of_training(tmp_path):
    image_folder(tmp_path / "train", 50, "ab", seed=1)
    image_folder(tmp_path / "val", 12, "ab", seed=2)
    data = load_data(str(tmp_path))
    assert [len(s) for s in (data.train, data.validation, data.test)] == [85, 24, 15]
    assert data.origin == "test drawn from the training split, seed 0"


def test_stray_and_hidden_files_are_told_or_skipped(tmp_path):
    root = image_folder(tmp_path / "pets")
    (root / "README.md").write_text("x")
    (root / "a" / "notes.txt").write_text("x")
    (root / "a" / ".DS_Store").write_text("x")
    (root / ".ipynb_checkpoints").mkdir()
    notes = " ".join(load_data(str(root)).notes)
    assert "2 files" in notes
    assert "README.md" in notes
    assert "DS_Store" not in notes


def test_a_second_load_takes_the_cache_and_is_identical(tmp_path, monkeypatch, cache):
    root = image_folder(tmp_path / "pets")
    first = load_data(str(root))
    assert len(list(cache.glob("*.images.npy"))) == 1

    def broken(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(encoded_module, "find_form", broken)
    second = load_data(str(root))
    assert second.sha256 == first.sha256
    assert torch.equal(second.train.inputs, first.train.inputs)
    second.train.inputs[0] = 0  # mapped copy-on-write: the file stays as it is
    assert torch.equal(load_data(str(root)).train.inputs, first.train.inputs)


def test_a_changed_image_is_noticed(tmp_path):
    root = image_folder(tmp_path / "pets")
    first = load_data(str(root))
    (root / "a" / "0000.png").write_bytes(encoded(pictures(1, 99)[0]))
    assert load_data(str(root)).sha256 != first.sha256


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", b"garbage" * 100])
def test_a_damaged_cache_is_made_anew(tmp_path, cache, damage):
    root = image_folder(tmp_path / "pets")
    first = load_data(str(root))
    for path in cache.glob("*.npy"):
        path.write_bytes(damage)
    assert load_data(str(root)).sha256 == first.sha256


def test_two_writers_of_one_entry_do_not_meet(cache):
    shape = (1, 1, 2, 2)

    def fill(images):
        if not list(cache.glob("*.npy")):
            cached_images(
                "key", shape, lambda others: others.fill(1) or np.zeros((1, 16), np.uint8)
            )
        images[:] = 2
        assert (np.load(cache / "key.images.npy") == 1).all()
        return np.zeros((1, 16), np.uint8)

    (images, _), note = cached_images("key", shape, fill)
    assert (images == 2).all()
    assert note == ""
    assert sorted(one.name for one in cache.iterdir()) == ["key.digests.npy", "key.images.npy"]


def test_a_cache_that_cannot_be_written_is_a_note(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "file"))
    data = load_data(str(image_folder(tmp_path / "pets")))
    assert any("can't be kept" in note for note in data.notes)
    assert len(data.train) == 70


def test_a_full_disk_is_a_note(tmp_path, monkeypatch, cache):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("harness.data.cache.os.posix_fallocate", full)
    data = load_data(str(image_folder(tmp_path / "pets")))
    assert any("No space left" in note for note in data.notes)
    assert list(cache.iterdir()) == []


def test_parquet_with_bytes_and_as_the_hub_writes_it(tmp_path):
    plain = load_data(str(parquet(tmp_path / "plain.parquet")))
    hub = load_data(str(parquet(tmp_path / "hub.parquet", struct=True, names=["cat", "dog"])))
    assert torch.equal(plain.train.inputs, hub.train.inputs)
    assert plain.classes == ("0", "1")
    assert hub.classes == ("cat", "dog")


def test_other_columns_of_parquet(tmp_path):
    path = parquet(tmp_path / "a.parquet", kind_=["x", "y"] * 50)
    data = load_data(f"{path},label=kind_")
    assert data.classes == ("x", "y")


def test_shards_and_shards_with_splits(tmp_path):
    for i in range(2):
        parquet(tmp_path / f"part-{i}.parquet", 50, i)
    assert len(load_data(str(tmp_path)).train) == 70
    hub = tmp_path / "hub"
    hub.mkdir()
    for i, name in enumerate(("train-00000-of-00002", "train-00001-of-00002", "test-0-of-1")):
        parquet(hub / f"{name}.parquet", 50, i)
    data = load_data(str(hub))
    assert len(data.train) + len(data.validation) == 100
    assert len(data.test) == 50


@pytest.mark.parametrize("name", ["{}_0", "{}.0", "{}", "{}ing-0"])
def test_shards_of_splits_may_be_named_otherwise(tmp_path, name):
    for i, split in enumerate(("Train", "test")):
        parquet(tmp_path / f"{name.format(split)}.parquet", 100, i)
    assert len(load_data(str(tmp_path)).test) == 100


@pytest.mark.parametrize(
    "names", [("train", "test", "extra"), ("test-0", "part-0"), ("val", "test")]
)
def test_shards_of_which_only_some_have_a_split_are_refused(tmp_path, names):
    for i, name in enumerate(names):
        parquet(tmp_path / f"{name}.parquet", 50, i)
    refuse(tmp_path, "shards of different splits", f"{names[-1]}.parquet", "train=A,test=B")


def test_words_that_only_begin_like_a_split_name_none(tmp_path):
    for i, name in enumerate(("trainable", "testimony")):
        parquet(tmp_path / f"{name}.parquet", 50, i)
    assert len(load_data(str(tmp_path)).train) == 70


def test_an_empty_shard_does_no_harm(tmp_path):
    parquet(tmp_path / "part-0.parquet", 100)
    table = pq.read_table(tmp_path / "part-0.parquet")
    pq.write_table(table.slice(0, 0), tmp_path / "part-1.parquet")
    assert load_data(str(tmp_path)).kind == "classification"
    refuse(tmp_path / "part-1.parquet", "has no rows")


@pytest.mark.parametrize("column", [["x", "y"] * 50, [True, False] * 50])
def test_the_hubs_class_names_are_of_its_numbers_only(tmp_path, column):
    path = parquet(tmp_path / "a.parquet", names=["cat", "dog"])
    table = pq.read_table(path)
    pq.write_table(table.set_column(1, "label", [column]), path)
    assert b"huggingface" in pq.read_schema(path).metadata
    assert load_data(str(path)).classes == tuple(sorted({str(one) for one in column}))


def test_regression_on_images(tmp_path):
    path = parquet(tmp_path / "a.parquet", angle=[i / 7 for i in range(100)])
    data = load_data(f"{path},label=angle")
    assert (data.kind, data.outputs) == ("regression", 1)
    assert data.train.targets_of().shape == (70, 1)


def test_size_and_channels(tmp_path):
    root = image_folder(tmp_path / "pets")
    (root / "a" / "large.png").write_bytes(encoded(pictures(1, 5, side=30)[0]))
    with pytest.raises(ConfigError, match=r"100 of 8x8, 1 of 30x30.*size="):
        load_data(str(root))
    assert load_data(f"{root},size=6x10,channels=1").train.sample_shape == (1, 6, 10)
    assert load_data(f"{root},size=6").train.sample_shape == (3, 6, 6)


def test_grey_images_have_one_channel(tmp_path):
    images = [encoded(one) for one in pictures(100, channels=1)]
    path = parquet(tmp_path / "grey.parquet", images=images)
    assert load_data(str(path)).train.sample_shape == (1, 8, 8)
    assert load_data(f"{path},channels=3").train.sample_shape == (3, 8, 8)


def test_augmentation_and_layout(tmp_path):
    root = str(image_folder(tmp_path / "pets"))
    data = load_data(root, augment="flip+shift").in_nhwc()
    assert data.train.augmentation.flip
    assert data.validation.augmentation is None
    assert data.test.sample_shape == (8, 8, 3)


FORM = ImageForm(3, 8, 8, resize=False)


def saved(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_transparency_is_laid_over_white():
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert (decode(saved(clear), FORM) == 255).all()
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert decode(saved(palette), FORM)[:, 0, 0].tolist() == [10, 20, 30]
    assert (decode(saved(palette, transparency=1), FORM) == 255).all()


def test_wide_greys_are_scaled_to_eight_bits():
    wide = Image.fromarray(np.full((8, 8), 0x8080, np.uint16))
    found = decode(saved(wide), ImageForm(1, 8, 8, resize=False))
    assert found.shape == (1, 8, 8)
    assert (found == 0x80).all()
    assert look(saved(wide)) == (8, 8, True)


def test_cmyk_becomes_rgb():
    assert decode(saved(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG"), FORM).min() >= 250


def test_orientation_is_applied():
    tags = Image.Exif()
    tags[0x0112] = 6  # turned by a quarter
    lying = saved(Image.new("RGB", (12, 8)), "JPEG", exif=tags)
    assert look(lying) == (12, 8, False)
    assert decode(lying, ImageForm(3, 12, 8, resize=False)).shape == (3, 12, 8)


def test_a_large_jpeg_is_resized_whole():
    pixels = np.zeros((512, 256, 3), np.uint8)
    pixels[:, 128:] = 255
    found = decode(saved(Image.fromarray(pixels), "JPEG"), ImageForm(3, 16, 16, resize=True))
    assert found[:, :, :7].max() < 16
    assert found[:, :, 9:].min() > 240


def refuse(spec, *words):
    with pytest.raises(ConfigError) as caught:
        load_data(str(spec))
    for word in words:
        assert word in str(caught.value)


def test_undecodable_images_are_named_and_counted(tmp_path):
    root = image_folder(tmp_path / "pets")
    for name in ("0000", "0002", "0004", "0006"):
        (root / "a" / f"{name}.png").write_bytes(b"not an image")
    refuse(root, "4 of 100 images", "a/0000.png", "a/0004.png", "and 1 more")


def test_a_link_that_leads_nowhere_is_named(tmp_path):
    root = image_folder(tmp_path / "pets")
    (root / "a" / "0001.png").symlink_to(tmp_path / "gone.png")
    refuse(root, "1 of 101 images", "a/0001.png")


def test_a_truncated_image_is_refused(tmp_path):
    images = [encoded(one) for one in pictures(100, side=40)]
    images[7] = images[7][: len(images[7]) // 2]
    refuse(parquet(tmp_path / "a.parquet", images=images), "1 of 100 images", "a.parquet row 7")


def test_bad_folders(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    refuse(empty, "0 class folders", "train/cat")
    (empty / "1.png").write_bytes(encoded(pictures(1)[0]))
    refuse(empty, "1 images outside of class folders", "/cat/1.jpg")
    refuse(image_folder(tmp_path / "one", 20, "a"), "1 class folders", "two classes")
    hollow = image_folder(tmp_path / "hollow", 20)
    (hollow / "c").mkdir()
    refuse(hollow, "1 of 3 class folders", "no images: c")
    twice = tmp_path / "twice"
    for name in ("train", "val", "valid"):
        image_folder(twice / name, 12)
    refuse(twice, "several folders for one split")


def test_a_class_that_training_lacks(tmp_path):
    image_folder(tmp_path / "train", 20, "ab")
    image_folder(tmp_path / "test", 12, "abc", seed=1)
    refuse(tmp_path, "test split has 1 classes that the training split lacks: c")


def test_bad_parquet(tmp_path):
    path = tmp_path / "bad.parquet"
    path.write_bytes(b"PAR1 no")
    refuse(path, "no readable parquet file")
    good = parquet(tmp_path / "good.parquet", gap=[None, 1] * 50, lists=[[1]] * 100)
    refuse(f"{good},image=pixels", "no column 'pixels'", "image, label, gap", "image=COLUMN")
    refuse(f"{good},label=nope", "no column 'nope'", "label=COLUMN")
    refuse(f"{good},image=label", "encoded images", "int64")
    refuse(f"{good},label=gap", "50 of 100 rows have no 'gap'")
    refuse(f"{good},label=lists", "numbers, truth values or texts", "list")
    (tmp_path / "none").mkdir()
    refuse(f"parquet:{tmp_path / 'none'}", "no file *.parquet")


def test_duplicates_between_given_splits_are_counted(tmp_path):
    image_folder(tmp_path / "train", 20, seed=1)
    image_folder(tmp_path / "val", 12, seed=2)
    image_folder(tmp_path / "test", 12, seed=3)
    shutil.copy(tmp_path / "train/a/0000.png", tmp_path / "test/a/same.png")
    notes = load_data(str(tmp_path)).notes
    assert any("1 of 25 test sample is also in the training split" in note for note in notes)
