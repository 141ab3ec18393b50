from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from harness.errors import ConfigError
from harness.target import Target, target_from_mapping


def test_settings_override_and_leave_the_rest() -> None:
    target = Target("cpu", "onnxruntime", granule=8)
    changed = target.with_settings(["threads=4", "batch = 2"])
    assert changed == Target("cpu", "onnxruntime", threads=4, batch=2, granule=8)
    assert target.threads == 1


@pytest.mark.parametrize("text", ["threads", "=4", ""])
def test_a_setting_is_key_and_value(text: str) -> None:
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        Target("cpu", "onnxruntime").with_settings([text])


def test_an_unknown_key_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'thread'.*threads"):
        Target("cpu", "onnxruntime").with_settings(["thread=4"])


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", 1.0, True, None, [1]])
@pytest.mark.parametrize("key", ["threads", "batch", "granule"])
def test_counts_are_whole_numbers_from_one(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=key):
        target_from_mapping({key: value}, Target("cpu", "onnxruntime"), "targets.toml")


def test_a_new_target_needs_name_and_backend() -> None:
    with pytest.raises(ConfigError, match="missing backend"):
        target_from_mapping({"name": "mine"}, None, "targets.toml")
    with pytest.raises(ConfigError, match="backend and name"):
        target_from_mapping({}, None, "targets.toml")


def test_description_and_granule_are_no_options_and_everything_else_is() -> None:
    one = Target("cpu", "onnxruntime", description="this", granule=8)
    other = Target("cpu", "onnxruntime", description="that", granule=16)
    assert one.options() == other.options()
    for change in (
        "threads=2", "batch=2", "affinity=1", "shapes.x=1x3", "provider=Other",
        "provider_options.a=b", "session_config.a=b",
    ):  # fmt: skip
        assert one.with_settings([change]).options() != one.options(), change


def test_options_can_be_recorded() -> None:
    target = Target("cpu", "onnxruntime").with_settings(["affinity=1,0", "shapes.x=1x3"])
    read = json.loads(json.dumps(target.options()))
    assert (read["affinity"], read["shapes"]) == ([0, 1], {"x": [1, 3]})


def test_a_granule_that_is_not_given_is_to_be_probed() -> None:
    assert Target("cpu", "onnxruntime").granule is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("affinity=3", {"affinity": (3,)}),
        ("affinity = 2, 0 ,2", {"affinity": (0, 2)}),
        ("provider=XnnpackExecutionProvider", {"provider": "XnnpackExecutionProvider"}),
        ("shapes.input=1x3x32x32", {"shapes": {"input": (1, 3, 32, 32)}}),
        ("shapes.a.b/c=7", {"shapes": {"a.b/c": (7,)}}),
        ("provider_options.device_id=0", {"provider_options": {"device_id": "0"}}),
        (
            "session_config.session.intra_op.allow_spinning=0",
            {"session_config": {"session.intra_op.allow_spinning": "0"}},
        ),
        ("session_config.a=b=c", {"session_config": {"a": "b=c"}}),
    ],
)
def test_every_kind_of_setting_is_taken(text: str, expected: dict[str, Any]) -> None:
    plain = Target("cpu", "onnxruntime")
    assert plain.with_settings([text]) == replace(plain, **expected)


def test_entries_of_a_table_are_added_and_replaced_one_by_one() -> None:
    target = Target("cpu", "onnxruntime", shapes={"a": (1,), "b": (2,)})
    changed = target.with_settings(["shapes.b=3", "shapes.c=4x5"])
    assert changed.shapes == {"a": (1,), "b": (3,), "c": (4, 5)}
    assert target.shapes == {"a": (1,), "b": (2,)}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("affinity=two", "affinity"),
        ("affinity=1,,2", "affinity"),
        ("affinity=-1", "affinity"),
        ("affinity=1.5", "affinity"),
        ("provider=", "provider"),
        ("shapes.input=", r"shapes\.input"),
        ("shapes.input=1x0", r"shapes\.input"),
        ("shapes.input=1,3", r"shapes\.input"),
        ("shapes=1x3", r"'shapes'.*shapes\.NAME"),
        ("shapes.=1x3", r"'shapes\.'.*shapes\.NAME"),
        (".a=1", r"'\.a'"),
        ("session_config=a", "session_config"),
        ("threads.a=1", r"'threads\.a'"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused_naming_the_key(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Target("cpu", "onnxruntime").with_settings([text])


@pytest.mark.parametrize("text", ["name=other", "backend=other", "hosts=pi"])
def test_what_a_target_is_can_not_be_set_for_one_run(text: str) -> None:
    with pytest.raises(ConfigError, match=text.partition("=")[0]):
        Target("cpu", "onnxruntime").with_settings([text])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hosts", "pi"),
        ("hosts", ["pi@board", ""]),
        ("board", [1]),
        ("python", "python3 -c"),
        ("emulated_cpu", 76),
        ("backend", 5),
        ("backend", ""),
        ("description", 1),
        ("provider", ""),
        ("provider", ["CPUExecutionProvider"]),
        ("affinity", 1),
        ("affinity", [True]),
        ("affinity", [-1]),
        ("affinity", [0, "x"]),
        ("affinity", {"0": 1}),
        ("shapes", "1x3"),
        ("shapes", [1, 3]),
        ("shapes.x", {"x": 3}),
        ("shapes.x", {"x": [0]}),
        ("shapes.x", {"x": [1, 2.5]}),
        ("shapes.x", {"x": None}),
        ("provider_options", "a=b"),
        ("provider_options.a", {"a": 0}),
        ("session_config", ["a"]),
        ("session_config.b", {"a": "b", "b": True}),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(key: str, value: Any) -> None:
    values = {key.partition(".")[0]: value}
    with pytest.raises(ConfigError, match=rf"targets\.toml: {re.escape(key)} must be"):
        target_from_mapping(values, Target("cpu", "onnxruntime"), "targets.toml")
