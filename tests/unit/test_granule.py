from __future__ import annotations

import json
import math
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from harness.errors import BackendError
from harness.folders import cache_folder
from harness.measurement.granule import (
    BINDING,
    FULL,
    GRANULES,
    QUICK,
    Effort,
    GranuleProbe,
    WidthCurve,
    common_granule,
    granule_key,
    load_granule,
    probe_granule,
    read_granule,
    save_granule,
)
from harness.measurement.types import Block, Estimate
from harness.measurement.width_models import INPUT, OPERATORS, OUTPUT, width_model
from harness.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Cost = Callable[[int], float]

WIDEST_NS = 400_000.0
QUIET = {"governor": "performance", "max_khz": 1, "throttle_count": 0}
# Six sittings: a made-up clock needs no more.
SHORT = replace(QUICK, seconds=0.1)
CONV = replace(FULL, operators=("conv3x3",), seconds=0.1)
# Convolutions on a machine with AVX-512 and ONNX Runtime 1.31, relative to 64 channels.
EVIDENCE = {
    31: 0.42, 32: 0.26, 47: 0.81, 48: 0.54, 49: 0.90, 52: 1.0, 56: 1.0, 60: 1.0, 63: 1.35, 64: 1.0,
}  # fmt: skip


def stairs(granule: int, order: int = 2, fixed: float = 0.0) -> Cost:
    """Cost of the next multiple of the granule, and a part of the time that no width changes."""
    return lambda width: fixed + (1 - fixed) * (math.ceil(width / granule) * granule / 64) ** order


def cliffs(granule: int) -> Cost:
    """Stairs whose odd widths fall off the runtime's fast path, as in the evidence."""
    return lambda width: stairs(granule)(width) * (1.5 if width % 4 else 1.0)


def flat(_: int) -> float:
    return 1.0


@dataclass
class Machine:
    """Times the chain of a width by formula; the width is in the file's name."""

    cost: Cost
    block_noise: float = 0.01
    process_noise: float = 0.0
    refuses: str = ""
    seed: int = 1
    loaded: list[str] = field(default_factory=list)
    held: bool = False

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        self.held = True
        yield
        self.held = False

    @contextmanager
    def open(self) -> Iterator[Worker]:
        assert self.held
        yield Worker(self)

    def probe(self, effort: Effort = SHORT) -> GranuleProbe:
        return probe_granule(self.open, self.exclusive, effort)


class Worker:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.facts = {"runtime_version": "7"}

    def load(self, model: Any, inputs: Mapping[str, Any], repeat: int = 1) -> Any:
        name = model.path.stem
        if name == self.machine.refuses:
            raise BackendError(f"{name} is refused")
        self.machine.loaded.append(name)
        luck = math.exp(self.machine.process_noise * self.machine.rng.normal())
        ns = WIDEST_NS * luck * self.machine.cost(int(name.partition("-")[2])) * repeat
        return SimpleNamespace(ns=ns, session_create_s=0.001, first_inference_s=0.001)

    def reload(self, session: Any) -> None:
        pass

    def time(self, schedule: Sequence[tuple[Any, int]]) -> list[Block]:
        blocks = []
        for session, calls in schedule:
            noise = math.exp(self.machine.block_noise * self.machine.rng.normal())
            wall = np.full(calls, round(session.ns * noise), np.int64)
            blocks.append(Block(wall, wall, np.zeros(calls, np.int64)))
        return blocks

    def state(self) -> dict[str, Any]:
        return dict(QUIET)


def ratios(
    cost: Cost, widths: Sequence[int], noise: float = 0.0, half_width: float = 0.01, seed: int = 0
) -> dict[int, Estimate]:
    """A curve as the probe would see it: every width off by its own luck."""
    rng = np.random.default_rng(seed)
    values = {width: cost(width) * math.exp(noise * rng.normal()) for width in sorted(widths)}
    widest = values[max(widths)]
    return {
        width: Estimate(v / widest, v / widest * (1 - half_width), v / widest * (1 + half_width))
        for width, v in values.items()
    }


def curve(operator: str, granule: int | None) -> WidthCurve:
    one = Estimate(1.0, 1.0, 1.0)
    half = Estimate(0.5, 0.48, 0.52)
    return WidthCurve(operator, (32, 64), (half, one), (half, one), granule)


def probe(granule: int | None = 16) -> GranuleProbe:
    return GranuleProbe((curve("conv3x3", granule), curve("linear", 8)), granule, 4.5)


@pytest.mark.parametrize(
    ("cost", "granule"),
    [
        (stairs(1), 1), (stairs(8), 8), (stairs(16), 16), (stairs(32), 32), (cliffs(16), 16),
        (flat, None),
    ],
    ids=["proportional", "8", "16", "32", "cliffs of 16", "flat"],
)  # fmt: skip
def test_the_granule_of_a_timed_machine_is_found(cost: Cost, granule: int | None) -> None:
    found = Machine(cost, block_noise=0.003).probe()
    assert found.granule == granule
    assert found.curves[0].granule == granule


@pytest.mark.parametrize("granule", [1, 16])
def test_a_full_curve_says_the_same(granule: int) -> None:
    assert Machine(stairs(granule), block_noise=0.003).probe(CONV).granule == granule


def test_a_curve_holds_seconds_and_ratios_to_the_widest() -> None:
    machine = Machine(stairs(16))
    (found,) = machine.probe().curves
    assert (found.operator, found.widths) == ("conv3x3", tuple(sorted(QUICK.widths)))
    for width, latency, ratio in zip(found.widths, found.latencies_s, found.ratios, strict=True):
        assert latency.value == pytest.approx(stairs(16)(width) * WIDEST_NS * 1e-9, rel=0.03)
        assert ratio.value == pytest.approx(stairs(16)(width), rel=0.03)
        assert ratio.lo <= ratio.value <= ratio.hi
    assert found.ratios[-1].value == 1.0


def test_a_full_probe_times_every_operator_once_and_says_how_long_it_took() -> None:
    machine = Machine(stairs(16))
    found = machine.probe(replace(FULL, widths=(32, 48, 64), seconds=0.1))
    assert [one.operator for one in found.curves] == list(OPERATORS)
    assert sorted(machine.loaded) == sorted(f"{n}-{w}" for n in OPERATORS for w in (32, 48, 64))
    assert found.took_s > 0
    assert not machine.held


def test_a_refused_graph_is_not_swallowed() -> None:
    with pytest.raises(BackendError, match="conv3x3-40"):
        Machine(flat, refuses="conv3x3-40").probe()


def test_pure_noise_says_nothing() -> None:
    for seed in range(2):
        assert Machine(flat, block_noise=1.0, seed=seed).probe().granule is None
        assert Machine(flat, process_noise=0.1, seed=seed).probe().granule is None


def test_the_granule_of_the_evidence_is_16() -> None:
    measured = {width: Estimate(r, 0.99 * r, 1.01 * r) for width, r in EVIDENCE.items()}
    assert read_granule(measured, order=2) == 16


@pytest.mark.parametrize("effort", [QUICK, FULL], ids=["quick", "full"])
@pytest.mark.parametrize(
    ("shape", "granule"),
    [*((stairs, granule) for granule in GRANULES), (cliffs, 4), (cliffs, 8), (cliffs, 16)],
)
def test_a_few_per_cent_of_luck_never_mislead(
    shape: Callable[[int], Cost], granule: int, effort: Effort
) -> None:
    noise = 0.005 if granule < 4 else 0.015
    found = [
        read_granule(ratios(shape(granule), effort.widths, noise, seed=seed), order=2)
        for seed in range(100)
    ]
    assert set(found) <= {granule, None}
    assert found.count(granule) >= (80 if granule == 1 else 95)


@pytest.mark.parametrize("effort", [QUICK, FULL], ids=["quick", "full"])
@pytest.mark.parametrize("granule", GRANULES[1:])
def test_a_fixed_cost_does_not_hide_the_granule(granule: int, effort: Effort) -> None:
    assert read_granule(ratios(stairs(granule, fixed=0.05), effort.widths), order=2) == granule


@pytest.mark.parametrize("effort", [QUICK, FULL], ids=["quick", "full"])
@pytest.mark.parametrize("granule", [8, 16])
def test_stairs_in_output_channels_only_count_too(granule: int, effort: Effort) -> None:
    def product(width: int) -> float:
        return width / 64 * stairs(granule, order=1)(width)

    found = [read_granule(ratios(product, effort.widths, 0.005, seed=s), 2) for s in range(100)]
    assert set(found) == {granule}


def test_fixed_cost_that_dwarfs_the_arithmetic_gives_no_granule() -> None:
    assert read_granule(ratios(stairs(8, fixed=0.9), FULL.widths), order=2) is None


def test_an_interval_too_wide_for_the_finest_step_gives_no_guess() -> None:
    wide = ratios(stairs(1), QUICK.widths, half_width=0.1)
    assert read_granule(wide, order=2) is None


def test_arithmetic_linear_in_the_width_is_held_against_a_linear_saving() -> None:
    assert read_granule(ratios(stairs(8, order=1), FULL.widths), order=1) == 8


def test_a_granule_whose_multiple_is_slower_than_a_wider_one_is_passed_over() -> None:
    costs = dict(ratios(stairs(8), (24, 32, 40, 48, 56, 64)))
    costs[33] = Estimate(0.2, 0.199, 0.201)  # faster than 32 channels
    assert read_granule(costs, order=2) is None


def test_a_granule_that_no_width_can_tell_is_not_claimed() -> None:
    assert read_granule(ratios(stairs(16), (16, 64)), order=2) is None


def test_every_granule_has_a_telling_step_in_both_efforts() -> None:
    for effort in (QUICK, FULL):
        for granule in GRANULES:
            odd = [w for w in effort.widths if w % granule == 0 and w // granule % 2 == 1]
            assert any(width + granule in effort.widths for width in odd)


def test_the_largest_of_the_binding_granules_is_the_targets() -> None:
    convs = [curve("conv3x3", 16), curve("conv1x1", 8)]
    assert common_granule(convs) == 16
    assert common_granule([*convs, curve("linear", 32)]) == 32
    assert common_granule([*convs, curve("linear", None)]) is None
    assert common_granule([*convs, curve("depthwise", None)]) == 16
    assert common_granule([curve("depthwise", 8)]) is None
    assert "depthwise" not in BINDING


def test_a_probe_survives_the_cache(cache: Path) -> None:
    for granule in (16, None):
        save_granule("a.b", probe(granule))
        assert load_granule("a.b") == probe(granule)
    assert load_granule("a.c") is None
    assert [path.name for path in cache.iterdir()] == ["a.b.json"]


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"\xff\xfe", b"null", b"[]", b"{}", b'{"format": 1}', b'"text"', b"[" * 100_000,
        b'{"format": 1, "granule": 16, "took_s": 1, "curves": [3]}',
    ],
)  # fmt: skip
def test_a_corrupt_cache_is_none(cache: Path, text: bytes) -> None:
    save_granule("a.b", probe())
    (cache / "a.b.json").write_bytes(text)
    assert load_granule("a.b") is None


@pytest.mark.parametrize(
    "change",
    [
        {"format": 99}, {"granule": 7}, {"granule": "16"}, {"took_s": None},
        {"curves": [{"operator": "conv3x3"}]},
    ],
)  # fmt: skip
def test_a_cache_of_other_contents_is_none(cache: Path, change: Mapping[str, Any]) -> None:
    save_granule("a.b", probe())
    path = cache / "a.b.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **change}))
    assert load_granule("a.b") is None


@pytest.mark.parametrize("row", [[1.0], [math.nan] * 3, [1.0, 2.0, 0.5], [0.0, 0.0, 0.0], "x"])
def test_a_cache_of_impossible_figures_is_none(cache: Path, row: Any) -> None:
    save_granule("a.b", probe())
    path = cache / "a.b.json"
    data = json.loads(path.read_bytes())
    data["curves"][0]["ratios"][0] = row
    path.write_text(json.dumps(data))
    assert load_granule("a.b") is None


def test_the_key_ignores_the_granule_and_nothing_else() -> None:
    machine = {
        "cpu_model": "a", "cpu_count": 2, "cpu_flags": ["avx2"], "architecture": "x86_64",
        "memory_bytes": 2**33,
    }  # fmt: skip
    facts = {"runtime_version": "1.31", "machine": machine}
    target = Target("cpu", "onnxruntime", granule=16)
    key = granule_key(target, facts)
    assert granule_key(replace(target, granule=4), facts) == key
    assert granule_key(replace(target, batch=2), facts) != key
    assert granule_key(replace(target, threads=2), facts) != key
    assert granule_key(target, {**facts, "runtime_version": "1.32"}) != key


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize(("width", "batch"), [(47, 1), (64, 3)])
def test_width_models_are_valid_and_carry_their_width(
    tmp_path: Path, name: str, width: int, batch: int
) -> None:
    model, inputs = width_model(name, width, batch, tmp_path)
    proto = onnx.load(str(model.path))
    onnx.checker.check_model(proto, full_check=True)
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    assert (proto.ir_version, proto.opset_import[0].version) == (8, model.opset)
    for value in (*proto.graph.input, *proto.graph.output):
        sizes = [one.dim_value for one in value.type.tensor_type.shape.dim]
        assert sizes[0] == batch
        assert width in sizes
        assert tuple(sizes) == inputs[INPUT].shape
    assert proto.graph.output[0].name == OUTPUT
    assert all(weight.dims[0] == width for weight in proto.graph.initializer)
    assert len(proto.graph.initializer) == OPERATORS[name].layers
    model.read()


def test_a_width_model_is_the_same_every_time(tmp_path: Path) -> None:
    first, inputs = width_model("conv3x3", 8, 1, tmp_path)
    again, same = width_model("conv3x3", 8, 1, tmp_path)
    assert first.sha256 == again.sha256
    np.testing.assert_array_equal(inputs[INPUT], same[INPUT])


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path))
    return cache_folder() / "granules"
