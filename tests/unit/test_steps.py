"""Steps by name and their options, whether they come from text, from JSON or from Python."""

from __future__ import annotations

import json
import math
import re
import sys
from dataclasses import FrozenInstanceError, dataclass
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from harness.compression import steps
from harness.compression.quantisation.precision import FP32
from harness.compression.steps import STEPS, parse_step, step_class
from harness.compression.steps.base import Context, Decision, Silent, Step, Work
from harness.compression.steps.options import (
    Reader,
    check_names,
    choice,
    flag,
    names,
    number,
    option,
    share,
    text,
    whole,
)
from harness.errors import ConfigError
from support.tiny import tiny


@dataclass(frozen=True, slots=True)
class Sample(Step):
    name: ClassVar[str] = "sample"
    about: ClassVar[str] = "has an option of every kind"

    params: float = option(share, about="which share goes")
    method: str = option(choice("fast", "slow"), "fast", about="how")
    epochs: int | None = option(whole(1), None, about="passes over the data")
    lr: float = option(number(0, with_low=False), 0.1, about="the peak learning rate")
    keep: tuple[str, ...] = option(names, (), about="layers that stay")
    label: str = option(text, "none", about="a name for it")
    fold: bool = option(flag, True, about="whether norms are folded")

    def apply(self, work: Work, decision: Decision, context: Context) -> Work:
        return Work(nn.Sequential(work.module), work.sparse, work.precision)


@dataclass(frozen=True, slots=True)
class Plain(Step):
    name: ClassVar[str] = "plain"
    about: ClassVar[str] = "has no options"

    def apply(self, work: Work, decision: Decision, context: Context) -> Work:
        return work


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("steps_of_this_test")
    module.Sample, module.Plain = Sample, Plain  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, f"{steps.__name__}.of_this_test", module)
    monkeypatch.setitem(STEPS, "sample", "of_this_test:Sample")
    monkeypatch.setitem(STEPS, "plain", "of_this_test:Plain")


def refused(given: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_step(given)
    return str(caught.value)


# Steps from text


def test_a_step_is_found_by_its_name() -> None:
    assert step_class("sample") is Sample
    assert parse_step("plain") == parse_step(" plain: ") == Plain()


def test_options_follow_the_name() -> None:
    step = parse_step(
        "sample:params=50%,method=slow,epochs=3,lr=1e-3,keep=layer1.0+head,label=a b,fold=no"
    )
    assert step == Sample(0.5, "slow", 3, 1e-3, ("layer1.0", "head"), "a b", False)


def test_options_that_are_not_given_have_their_defaults() -> None:
    assert parse_step("sample:params=0.25") == Sample(params=0.25)
    assert Sample(params=0.25).options() == {
        "params": 0.25, "method": "fast", "epochs": None, "lr": 0.1, "keep": [], "label": "none",
        "fold": True,
    }  # fmt: skip


def test_spaces_around_names_and_values_do_not_matter() -> None:
    given = " sample : params = 50 % , keep = one + two , label = x "
    assert parse_step(given) == Sample(0.5, keep=("one", "two"), label="x")


def test_a_value_may_hold_colons_and_equals_signs() -> None:
    assert parse_step("sample:params=50%,label=2:4=x") == Sample(0.5, label="2:4=x")


@pytest.mark.parametrize("given", ["smaple:params=50%", "Sample", "sample2"])
def test_an_unknown_step_is_refused_with_the_known_ones_and_a_hint(given: str) -> None:
    message = refused(given)
    assert f"There is no step {given.partition(':')[0]!r}" in message
    assert "prune" in message
    assert message.endswith("Did you mean 'sample'?")


@pytest.mark.parametrize("given", ["", ":", "zzz", "  :params=50%"])
def test_without_a_similar_step_there_is_no_hint(given: str) -> None:
    message = refused(given)
    assert "There is no step" in message
    assert "Did you mean" not in message


def test_an_unknown_option_is_refused_with_the_known_ones_and_a_hint() -> None:
    message = refused("sample:params=50%,metod=slow")
    assert "Step 'sample' has no option 'metod'." in message
    assert "Its options: params, method, epochs, lr, keep, label, fold." in message
    assert message.endswith("Did you mean 'method'?")
    assert "Did you mean" not in refused("sample:zzz=1")


def test_what_is_no_option_is_refused_although_the_class_has_it() -> None:
    assert "has no option 'name'" in refused("sample:params=50%,name=x")


def test_a_step_without_options_says_so() -> None:
    assert "Step 'plain' has no option 'params'. It has no options." in refused("plain:params=50%")


def test_a_needed_option_that_is_missing_is_told_with_what_it_is() -> None:
    message = refused("sample")
    assert "Step 'sample' needs params: which share goes." in message
    assert "Give it as 'sample:params=...'." in message
    with pytest.raises(TypeError, match="params"):
        Sample()  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ("sample:params=50%,params=60%", "params=60%"),
        ("sample:params=50%,params =50%", "params =50%"),
        ("sample:params", "params"),
        ("sample:=50%", "=50%"),
        ("sample:params=50%,", ""),
        ("sample:params=50%,,lr=1", ""),
        ("plain:,", ""),
        (" sample :params", "params"),
    ],
)
def test_options_are_keys_with_values_each_once(given: str, part: str) -> None:
    message = refused(given)
    name = given.partition(":")[0].strip()
    assert f"Step {name!r} takes options as KEY=VALUE, each once" in message
    assert f"Received: {part!r} in {given!r}" in message


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("params=", "a share above 0 % and below 100 %, such as 50%"),
        ("params=150%", "a share above 0 % and below 100 %, such as 50%"),
        ("params=50%,method=slwo", "one of fast, slow (did you mean 'slow'?)"),
        ("params=50%,epochs=0", "a whole number from 1"),
        ("params=50%,lr=0", "a number above 0"),
        ("params=50%,keep=+", "at least one name"),
        ("params=50%,label=", "a text"),
        ("params=50%,fold=maybe", "yes or no"),
    ],
)
def test_a_value_that_does_not_fit_is_told_with_its_option(given: str, expected: str) -> None:
    key, _, value = given.rpartition(",")[2].partition("=")
    message = refused(f"sample:{given}")
    assert message == f"Step 'sample': {key} must be {expected}. Received: {value!r}."


# From Python and from JSON


def test_python_and_text_come_to_the_same() -> None:
    given: dict[str, Any] = {"params": "50%", "epochs": "3", "keep": ["a", "b"]}
    assert Sample(**given) == Sample(0.5, epochs=3, keep=("a", "b"))
    assert len({Sample(**given), Sample(0.5, epochs=3, keep=("a", "b"))}) == 1
    assert Sample(params=0.5) != Sample(params=0.25)


def test_python_is_checked_like_text() -> None:
    with pytest.raises(ConfigError, match=r"Step 'sample': params must be .* Received: 50\."):
        Sample(params=50)
    with pytest.raises(ConfigError, match="epochs must be a whole number from 1. Received: True"):
        Sample(params=0.5, epochs=True)
    with pytest.raises(ConfigError, match="label must be a text. Received: None"):
        Sample(params=0.5, label=None)  # type: ignore[arg-type]


def test_a_default_of_another_type_is_read_all_the_same() -> None:
    with pytest.raises(ConfigError, match="fold must be yes or no. Received: 1"):
        Sample(params=0.5, fold=1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "step", [Sample(0.5), Sample(0.1 + 0.2, "slow", 3, 1, ("a", "b"), "x", False), Plain()]
)
def test_a_step_is_made_again_from_its_options_as_json(step: Step) -> None:
    again = type(step)(**json.loads(json.dumps(step.options())))
    assert again == step
    assert again.options() == step.options()


@pytest.mark.parametrize(
    "step",
    [
        Sample(0.1 + 0.2, "slow", 3, 1e-7, ("a", "b"), "x", False), Sample(0.5), Plain(),
        step_class("prune")(scope="layers", layers="layer1.0=8+layer2.0=50%"),  # type: ignore[call-arg]
    ],
)  # fmt: skip
def test_a_step_is_made_again_from_its_own_text(step: Step) -> None:
    assert parse_step(step.text()) == step


def test_options_of_numpy_are_written_as_json_too() -> None:
    step = Sample(params=np.float64(0.5), epochs=np.int64(3), lr=np.float32(0.5))  # type: ignore[arg-type]
    assert json.loads(json.dumps(step.options()))["epochs"] == 3
    assert step == Sample(0.5, epochs=3, lr=0.5)


def test_a_step_can_not_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Sample(0.5).params = 0.25  # type: ignore[misc]


def test_names_are_checked_on_their_own() -> None:
    check_names(Sample, {"params": 0.5, "lr": 1})
    with pytest.raises(ConfigError, match="needs params"):
        check_names(Sample, {"lr": 1})


# Readers


@pytest.mark.parametrize(
    ("read", "given", "expected"),
    [
        (share, "50%", 0.5), (share, " 12.5 % ", 0.125), (share, "0.5", 0.5), (share, 0.5, 0.5),
        (share, np.float64(0.5), 0.5), (share, "1e-3", 1e-3),
        (whole(0), "0", 0), (whole(2), " 12 ", 12), (whole(1), 3, 3), (whole(1), np.int64(3), 3),
        (number(0, 1), "0", 0.0), (number(0, 1), 1, 1.0), (number(0), "1e6", 1e6),
        (number(0, 1, with_low=False), 1e-9, 1e-9), (number(-5), "-5", -5.0),
        (choice("a", "b"), "b", "b"),
        (names, "a", ("a",)), (names, " a + b.0 ", ("a", "b.0")), (names, ["a", "b"], ("a", "b")),
        (names, ("a",), ("a",)), (text, " a b ", "a b"),
        (flag, "yes", True), (flag, "no", False), (flag, True, True), (flag, False, False),
    ],
)  # fmt: skip
def test_a_reader_returns_the_value_in_its_own_type(
    read: Reader, given: Any, expected: Any
) -> None:
    found = read(given)
    assert found == expected
    assert type(found) is type(expected)


_MANY = 10**400
"""A whole number that is no float."""


_SHARE = "a share above 0 % and below 100 %, such as 50%"


@pytest.mark.parametrize(
    ("read", "expected", "bad"),
    [
        (share, _SHARE, ["0", "100%", "0%", "1", "-5%", "%", "", "half", "nan", "nan%", "inf"]),
        (share, _SHARE, [50, 1, 0, None, True, [0.5], {}, _MANY]),
        (whole(1), "a whole number from 1", ["0", "-1", "1.0", "", "one", "1e3", "²", "9" * 5000]),
        (whole(1), "a whole number from 1", [0, 1.0, None, True, [1], -_MANY, np.float64(2)]),
        (number(0, 1), "a number from 0 to 1", ["-0.1", "1.1", "", "x", "nan", "inf"]),
        (number(0, 1), "a number from 0 to 1", [None, True, [1], {}, -1, _MANY]),
        (number(0, with_low=False), "a number above 0", ["0", 0, -1, math.inf, "nan"]),
        (number(0), "a number from 0", [math.inf, -1e-9]),
        (choice("a", "b"), "one of a, b", ["", "c", "A", None, 1, ["a"], {}, np.array(["a", "b"])]),
        (choice("fast", "slow"), "one of fast, slow (did you mean 'fast'?)", ["fats", "Fast"]),
        (names, "at least one name", ["", "+", " + ", [], (), [""]]),
        (names, "names joined by '+', such as layer1.0+layer1.1", [None, 3, [1], ["a", None], {}]),
        (text, "a text", ["", "  ", None, 3, ["a"]]),
        (flag, "yes or no", ["", "true", "Yes", None, 1, 0, [], {}, 2, np.array([True, False])]),
    ],
)
def test_a_reader_refuses_what_does_not_fit_and_says_what_would(
    read: Reader, expected: str, bad: list[Any]
) -> None:
    for given in bad:
        with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
            read(given)


# What steps are given and return


def test_what_a_step_need_not_do_has_defaults() -> None:
    work, context = Work(nn.Linear(2, 2)), Context(tiny(), nn.Identity())
    assert (work.sparse, work.precision) == ((), FP32)
    step = Sample(0.5)
    assert step.decide(work, context) == {}
    assert isinstance(step.rebuild(work, {}, context).module, nn.Sequential)


def test_a_context_has_an_example_and_says_nothing() -> None:
    task = tiny()
    context = Context(task, task.model())
    assert torch.equal(context.example, task.example_input(1))
    with context.shared():
        context.breathe()
    assert isinstance(context.listener, Silent)
    context.listener.phase("x")
    context.listener.advance(1, 2)
    context.listener.note("x")
