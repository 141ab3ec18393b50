from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from harness.errors import ConfigError, TaskError
from harness.importing import load_object, user_code
from harness.models.check import check_network


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def refuse(spec, *words):
    with pytest.raises(ConfigError) as caught:
        load_object(spec, "--model")
    for word in ("--model", *words):
        assert word in str(caught.value)


def test_a_file_and_a_module_of_the_current_folder(here):
    (here / "nets.py").write_text("import helper\nclass A:\n    b = helper.c\n")
    (here / "helper.py").write_text("c = 7\n")
    assert load_object("nets.py:A.b", "--model") == 7
    assert load_object(f"{here}/nets.py:A", "--model").b == 7
    assert load_object("nets:A", "--model").b == 7


def test_two_options_share_a_file_until_it_changes(here):
    (here / "nets.py").write_text("class A: pass\n")
    first = load_object("nets.py:A", "--model")
    assert load_object("nets.py:A", "--data") is first
    (here / "nets.py").write_text("class A: pass  # edited\n")
    assert load_object("nets.py:A", "--model") is not first


def test_files_of_one_name_do_not_mix(here):
    for name in ("one", "two"):
        (here / name).mkdir()
        (here / name / "net.py").write_text(f"v = {name!r}\n")
    assert load_object("one/net.py:v", "--model") == "one"
    assert load_object("two/net.py:v", "--model") == "two"


def test_neighbours_of_one_name_do_not_mix(here):
    for name in ("one", "two"):
        (here / name / "parts").mkdir(parents=True)
        (here / name / "parts" / "inner.py").write_text(f"w = {name!r}\n")
        (here / name / "utils.py").write_text(f"v = {name!r}\n")
        (here / name / f"{name}_net.py").write_text(
            "import utils\nfrom parts import inner\ndef f(): return utils.v, inner.w\n"
        )
    first = load_object("one/one_net.py:f", "--model")
    assert load_object("two/two_net.py:f", "--data")() == ("two", "two")
    assert first() == ("one", "one")
    (here / "one" / "again.py").write_text("import utils\n")
    assert load_object("one/again.py:utils.v", "--loss") == "one"


def test_a_neighbour_does_not_stand_for_a_module_of_the_current_folder(here):
    (here / "sub").mkdir()
    for folder in (here, here / "sub"):
        (folder / "utils.py").write_text(f"v = {folder.name!r}\n")
    (here / "sub" / "net.py").write_text("import utils\nv = utils.v\n")
    assert load_object("sub/net.py:v", "--model") == "sub"
    assert load_object("utils:v", "--data") == here.name


@pytest.mark.parametrize("name", ["queue", "types", "sys"])
def test_a_file_that_an_imported_module_hides_is_told(here, name):
    (here / f"{name}.py").write_text("v = 1\n")
    refuse(f"{name}:v", f"{here}/{name}.py", f"'{name}.py:NAME'")
    assert load_object(f"{name}.py:v", "--model") == 1


def test_a_property_that_fails_is_told(here):
    (here / "p.py").write_text(
        "class A:\n    @property\n    def b(self):\n        raise OSError('no disk')\na = A()\n"
    )
    refuse("p.py:a.b", "p.py:4", "OSError: no disk")


@pytest.mark.parametrize("spec", ["net", "net:", ":a", ""])
def test_what_names_nothing(spec):
    refuse(spec, "pkg.module:name", repr(spec))


def test_what_is_not_there(here):
    (here / "nets.py").write_text("def build(): pass\n")
    refuse("absent.py:a", "'absent.py'", "can't be read")
    refuse("absent_module:a", "no module 'absent_module'")
    refuse("nets:bild", "nets has no 'bild'", "Did you mean 'build'?")


def test_what_a_file_has_instead_is_listed(here):
    (here / "many.py").write_text(
        "import json\nfrom functools import partial\nSIZE = 3\n_hidden = print\n"
        "def build(): pass\nclass Net: pass\nnet = partial(build)\n"
    )
    refuse("many.py:nothere", "many.py has no 'nothere'. It has: Net, build, net.")


def test_what_fails_is_told_with_its_line(here):
    (here / "a.py").write_text("x = 1\nraise RuntimeError('no luck')\n")
    refuse("a.py:x", "a.py:2", "RuntimeError: no luck")
    (here / "b.py").write_text("import nowhere_to_be_found\n")
    refuse("b:x", "b.py:1", "No module named 'nowhere_to_be_found'")
    (here / "c.py").write_text("x = (\n")
    refuse("c.py:x", "c.py:1", "SyntaxError")
    (here / "d.py").write_text("import sys\nsys.exit(0)\n")
    refuse("d.py:x", "d.py:2", "SystemExit")
    half_loaded = ("_harness_user_a_", "_harness_user_c_", "_harness_user_d_")
    assert not any(name.startswith(half_loaded) for name in sys.modules)


def test_the_users_own_line_is_named_not_the_librarys(here):
    (here / "e.py").write_text("import json\n\ndef f():\n    return json.loads('{')\n")
    with pytest.raises(ConfigError, match=r"e\.py:4: JSONDecodeError"), user_code("f", "--model"):
        load_object("e.py:f", "--model")()


def test_where_no_line_of_the_users_was_at_work_no_place_is_named():
    with pytest.raises(ConfigError) as caught:
        check_network(nn.Sequential(nn.Linear(7, 10)), torch.zeros(2, 5), None)
    assert "on 2 samples of shape [5] (float32) failed: RuntimeError: mat1" in str(caught.value)
    assert ".py" not in str(caught.value)
    assert "Mend it there" not in str(caught.value)


def test_our_own_errors_pass():
    with pytest.raises(TaskError, match="as it is"), user_code("f", "--model"):
        raise TaskError("as it is")
