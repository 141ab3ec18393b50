from __future__ import annotations

import pytest

from harness.compression.quantisation.precision import FP32, Precision
from harness.compression.steps import parse_step
from harness.compression.steps.base import Context, Work
from harness.errors import ConfigError
from support.tiny import tiny

TASK = tiny()
CONTEXT = Context(TASK, TASK.model())


@pytest.mark.parametrize(
    ("text", "precision"),
    [
        ("fp16", Precision("fp16")),
        ("int8", Precision("int8", 512, "minmax")),
        ("int8:calibration=64,method=entropy", Precision("int8", 64, "entropy")),
        ("int8-dynamic", Precision("int8-dynamic")),
    ],
)
def test_a_step_sets_the_precision_and_nothing_else(text: str, precision: Precision) -> None:
    step, work = parse_step(text), Work(TASK.model(), ("conv1.weight",))
    assert step.decide(work, CONTEXT) == {}
    for made in (step.apply(work, {}, CONTEXT), step.rebuild(work, {}, CONTEXT)):
        assert made.precision == precision
        assert made.module is work.module
        assert made.sparse == work.sparse
    assert work.precision == FP32


@pytest.mark.parametrize("text", ["fp16", "int8", "int8-dynamic"])
def test_one_precision_is_enough(text: str) -> None:
    work = Work(TASK.model(), precision=Precision("int8"))
    step = parse_step(text)
    with pytest.raises(ConfigError, match="that a step before it set to int8"):
        step.decide(work, CONTEXT)
    with pytest.raises(ConfigError, match="Leave one of the two"):
        step.apply(work, {}, CONTEXT)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int8:method=entropie", "did you mean 'entropy'"),
        ("int8:calibration=0", "a whole number from 1"),
        ("fp16:method=minmax", "has no option 'method'"),
    ],
)
def test_options_that_do_not_fit_are_told(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_step(text)
