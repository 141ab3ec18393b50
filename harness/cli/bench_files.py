"""What `harness bench` writes for programs: JSON, Markdown, raw samples, a plot."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.atomic import write_atomic
from harness.errors import ConfigError
from harness.measurement.compare import verdict
from harness.provenance import now_utc
from harness.quantity import TIME
from harness_results.record import latency_figures

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from harness.api.bench import BenchResult, Timed
    from harness.measurement.server import ServerResult
    from harness.measurement.types import Estimate, OperatorTime
    from harness.quantity import Quantity
    from harness.target import Target
    from harness_backends.loadgen import LoadGenResult

SCHEMA = 2


@dataclass(frozen=True, slots=True)
class Files:
    """What is to be kept.

    Attributes:
        samples: An npz file for every timed call; None for none.
        plot: A PNG or SVG file for histogram and run order; None for none.
    """

    samples: Path | None
    plot: Path | None

    def check(self) -> None:
        """Check before the work that both can be written.

        Raises:
            ConfigError: If one can't.
        """
        check_writable(self.samples, (".npz",))
        check_writable(self.plot, (".png", ".svg"))

    def keep(self, result: BenchResult) -> None:
        """Write a result's calls and their picture."""
        if self.samples is not None:
            arrays = {
                f"{i}.{process}.{key}": values
                for i, one in enumerate(result.models)
                for process, sample in enumerate(one.measurement.samples)
                for key, values in sample.arrays().items()
            }
            _write_npz(self.samples, arrays)
        if self.plot is not None:
            from harness_results.calls import draw_calls

            named = [(str(one.model.path), one.measurement.samples) for one in result.models]
            draw_calls(self.plot, named)

    def keep_server(self, served: ServerResult, path: Path) -> None:
        """Write every request's latency and their picture."""
        if self.samples is not None:
            arrays = {f"0.{i}.latency_s": one for i, one in enumerate(served.latencies_s)}
            _write_npz(self.samples, arrays)
        if self.plot is not None:
            from harness_results.calls import draw_requests

            draw_requests(self.plot, str(path), served.latencies_s)


def check_writable(path: Path | None, suffixes: Sequence[str]) -> None:
    """Check before the work that a file can be written where it was asked.

    Raises:
        ConfigError: If its folder is missing, or its suffix is another.
    """
    if path is None:
        return
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: its folder does not exist. Create it, or name another file.")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder. Expected the name of a file to write.")
    if path.suffix not in suffixes:
        raise ConfigError(f"{path}: expected a name that ends in {' or '.join(suffixes)}.")


def as_json(
    result: BenchResult, nodes: Sequence[OperatorTime] | None, judged: LoadGenResult | None
) -> dict[str, Any]:
    """Return everything that was measured, in SI units or instructions; None is unknown."""
    one_process = result.models[0].measurement.stats.n_processes == 1
    return {
        **_head(result.target, result.scenario),
        "fingerprint": result.fingerprint,
        "machine": dict(result.machine),
        "confidence": result.confidence,
        "intervals_over": "sittings" if one_process else "processes",
        "models": [_model(timed, result) for timed in result.models],
        "reference": None if result.reference is None else latency_figures(result.reference),
        "profile": None if nodes is None else [asdict(node) for node in nodes],
        "referee": None if judged is None else asdict(judged),
    }


def server_as_json(path: Path, target: Target, served: ServerResult) -> dict[str, Any]:
    """Return a server result, in SI units; None is unknown."""
    quantiles = {f"{name}_s": _triple(one) for name, one in served.quantiles.items()}
    plain = ("rate", "achieved", "busy", "service_p50_s", "n_requests", "n_processes")
    return {
        **_head(target, "server"),
        "model": str(path),
        **{name: getattr(served, name) for name in plain},
        **quantiles,
        "flags": list(served.flags),
        "environment": dict(served.environment),
    }


def print_json(content: dict[str, Any]) -> None:
    """Print JSON on standard output, and nothing else."""
    sys.stdout.write(json.dumps(content, indent=1, allow_nan=False) + "\n")


def print_table(result: BenchResult) -> None:
    """Print one line per model as a Markdown table."""
    quantity = result.target.quantity
    unit = "ms" if quantity is TIME else f"{quantity.noun}, {quantity.unit}"
    titles = ["model", *(f"{name} (95 %), {unit}" for name in ("p50", "p90", "p99"))]
    if result.models[0].throughput is not None:
        titles.append("samples/s (95 %)")
    if len(result.models) > 1:
        titles += ["ratio (95 %)", "verdict"]
    titles.append("flags")
    rows = [_row(timed, result) for timed in result.models]
    _print_markdown(titles, rows)


def print_server_table(served: ServerResult) -> None:
    """Print the server figures as a Markdown table."""
    titles = ["requests/s", "p50 (95 %), ms", "p90 (95 %), ms", "p99 (95 %), ms", "busy", "flags"]
    cells = [_cell(served.quantiles[name], TIME) for name in ("p50", "p90", "p99")]
    row = [f"{served.rate:g}", *cells, f"{served.busy:.1%}", " ".join(served.flags)]
    _print_markdown(titles, [row])


def _write_npz(path: Path, arrays: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomic(path, buffer.getvalue())


def _head(target: Target, scenario: str) -> dict[str, Any]:
    return {
        "schema": SCHEMA, "command": "bench", "date_utc": now_utc(),
        "target": target.options(), "scenario": scenario, "quantity": target.quantity.name,
    }  # fmt: skip


def _model(timed: Timed, result: BenchResult) -> dict[str, Any]:
    first = timed is result.models[0]
    compared = None
    if not first:
        ratio = timed.measurement.stats.ratio("p50")
        compared = {"to": str(result.models[0].model.path), "ratio_p50": _triple(ratio),
                    "verdict": str(verdict(ratio, result.target.quantity))}  # fmt: skip
    throughput = None
    if timed.throughput is not None:
        throughput = {"batch": timed.throughput.batch, "per_s": _triple(timed.throughput.per_s),
                      "ratio": _triple(timed.throughput.ratio)}  # fmt: skip
    return {
        "path": str(timed.model.path),
        "sha256": timed.model.sha256,
        "size_bytes": timed.model.size_bytes,
        "inputs": {
            spec.name: {"shape": list(spec.shape), "dtype": spec.dtype, "fed": spec.fed}
            for spec in timed.inputs
        },
        **latency_figures(timed.measurement),
        "throughput": throughput,
        "compared": compared,
        "environment": dict(timed.measurement.environment),
    }


def _row(timed: Timed, result: BenchResult) -> list[str]:
    stats = timed.measurement.stats
    row = [str(timed.model.path)]
    row += [_cell(one, stats.quantity) for one in (stats.p50, stats.p90, stats.p99)]
    if timed.throughput is not None:
        per_s = timed.throughput.per_s
        row.append(f"{per_s.value:.4g} ({per_s.lo:.4g} to {per_s.hi:.4g})")
    if len(result.models) > 1:
        ratio = stats.ratio("p50")
        is_first = timed is result.models[0]
        row.append("1" if is_first else f"{ratio.value:.3f} ({ratio.lo:.3f} to {ratio.hi:.3f})")
        row.append("" if is_first else str(verdict(ratio, stats.quantity)))
    return [*row, " ".join(timed.measurement.flags)]


def _cell(estimate: Estimate | None, quantity: Quantity) -> str:
    if estimate is None:
        return ""
    value, low, high = map(quantity.scaled, (estimate.value, estimate.lo, estimate.hi))
    return f"{value:.4g} ({low:.4g} to {high:.4g})"


def _triple(estimate: Estimate | None) -> list[float] | None:
    return None if estimate is None else [estimate.value, estimate.lo, estimate.hi]


def _print_markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = [titles, ["---"] * len(titles), *rows]
    for line in lines:
        cells = (cell.replace("|", "\\|") for cell in line)
        sys.stdout.write("| " + " | ".join(cells) + " |\n")
