from __future__ import annotations

import json

import pytest

from harness.data.options import DataSpec, parse_data_spec
from harness.errors import ConfigError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "b.csv", "a.parquet", "a.npz", "a,b.csv", "plain"):
        (tmp_path / name).write_text("")
    (tmp_path / "pets").mkdir()
    return tmp_path


def refuse(spec, *words):
    with pytest.raises(ConfigError) as caught:
        parse_data_spec(spec) if isinstance(spec, str) else DataSpec.from_mapping(spec)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("pets", "imagefolder"), ("a.parquet", "parquet"), ("a.npz", "npz"), ("a.csv", "csv"),
        ("fashion-mnist", "idx"), ("digits", "digits"), ("own.py:f", "factory"),
        ("pkg.own:f", "factory"), ("csv:plain", "csv"), ("parquet:plain", "parquet"),
        ("npz:plain", "npz"), ("imagefolder:pets", "imagefolder"), ("fashion-mnist:pets", "idx"),
    ],
)  # fmt: skip
def test_kinds_of_sources(text, kind):
    assert parse_data_spec(text).source_kind == kind


def test_a_folder_with_parquet_files_is_one_of_shards(here):
    (here / "pets" / "0.parquet").write_text("")
    assert parse_data_spec("pets").source_kind == "parquet"


def test_keys():
    spec = parse_data_spec("a.parquet, label=fine , size=32x48,channels=3,normalize=imagenet,"
                           "test_fraction=20%,val_fraction=0.1,split_seed=7,image=img")  # fmt: skip
    assert (spec.label, spec.size, spec.channels, spec.normalize) == (
        ("fine",), (32, 48), 3, "imagenet")  # fmt: skip
    assert (spec.test_fraction, spec.val_fraction, spec.split_seed, spec.image) == (
        0.2, 0.1, 7, "img")  # fmt: skip
    table = parse_data_spec("a.csv,label=x+y,drop=id,kind=regression,normalize=0.5")
    assert (table.label, table.drop, table.kind) == (("x", "y"), ("id",), "regression")


def test_commas_in_paths_and_columns(here):
    spec = parse_data_spec("a,b.csv,label=price, euros")
    assert spec.places == (("all", str(here / "a,b.csv")),)
    assert spec.label == ("price, euros",)


def test_a_source_per_split(here):
    spec = parse_data_spec("train=a.csv,val=b.csv,label=y")
    assert spec.places == (("train", str(here / "a.csv")), ("validation", str(here / "b.csv")))


def test_a_table_of_a_settings_file(here):
    (here / "pets" / "c.csv").write_text("")
    spec = DataSpec.from_mapping(
        {"train": "c.csv", "test": "../a.csv", "label": ["x", "y"], "split_seed": 3,
         "val_fraction": 0.2}, base=here / "pets",
    )  # fmt: skip
    assert dict(spec.places) == {"train": str(here / "pets/c.csv"), "test": str(here / "a.csv")}
    assert (spec.label, spec.split_seed, spec.val_fraction) == (("x", "y"), 3, 0.2)


@pytest.mark.parametrize(
    "text",
    ["a.csv,label=x+y,normalize=none", "csv:plain,label=x", "train=a.csv,test=b.csv,label=x",
     "pets,size=32x48,split_seed=2", "own.py:f", "pkg.own:f", "digits", "fashion-mnist",
     "fashion-mnist:pets"],
)  # fmt: skip
def test_a_spec_comes_back_from_json(text, here, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.data.sources.FASHION_MNIST", str(here / "pets"))
    spec = parse_data_spec(text)
    stored = json.loads(json.dumps(spec.as_mapping()))
    monkeypatch.chdir("/")
    assert DataSpec.from_mapping(stored) == spec


def test_sources_that_are_not_there():
    refuse("b.cvs", "no file or folder 'b.cvs'", "Did you mean 'b.csv'?")
    refuse("digit", "Did you mean 'digits'?")
    refuse("plain", "can't tell what kind", "csv:")
    refuse("", "SOURCE")
    refuse("label=x", "no source")
    refuse("x" * 300, "there is no file")
    refuse("~nobody-of-that-name/x.csv", "there is no file")


def test_bad_combinations_of_sources():
    refuse("train=a.csv,label=x", "with val=SOURCE")
    refuse("val=a.csv,test=b.csv", "train=SOURCE")
    refuse("train=a.csv,test=a.npz,label=x", "one kind", "csv, npz")
    refuse("train=a.csv,val=b.csv,validation=b.csv", "validation split is given twice")
    refuse({"source": "a.csv", "train": "a.csv", "test": "a.csv"}, "one source for all")
    refuse("train=a.csv,test=b.csv,label=x,test_fraction=0.1", "the test split is given")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.csv,labell=x", ["unknown key 'labell'", "Did you mean 'label'?"]),
        ("a.csv,label=x,size=32", ["size= is for imagefolder", "this is csv"]),
        ("pets,drop=x", ["drop= is for csv data", "this is imagefolder"]),
        ("a.csv,label=x,label=y", ["label= is given twice"]),
        ("a.csv,label=", ["different columns"]),
        ("a.csv,label=x+x", ["different columns"]),
        ("pets,size=0", ["from 1 to 4096", "'0'"]),
        ("pets,size=3x4x5", ["HEIGHTxWIDTH"]),
        ("pets,size=big", ["'big'"]),
        ("pets,channels=2", ["must be 1 or 3"]),
        ("a.csv,label=x,kind=ranking", ["classification or regression"]),
        ("a.npz,layout=chw", ["nchw or nhwc"]),
        ("pets,normalize=minmax", ["imagenet", "'minmax'"]),
        ("pets,normalize=1:2:3", ["means and deviations"]),
        ("pets,normalize=0.5/0", ["means and deviations"]),
        ("pets,normalize=nan/1", ["means and deviations"]),
        ("pets,test_fraction=1.5", ["test_fraction", "'1.5'"]),
        ("pets,test_fraction=0", ["above 0"]),
        ("pets,val_fraction=100%", ["below 1"]),
        ("pets,val_fraction=0.5,test_fraction=0.5", ["leave samples to train on"]),
        ("pets,split_seed=-1", ["whole number from 0"]),
    ],
)
def test_bad_keys(text, words):
    refuse(text, *words)
