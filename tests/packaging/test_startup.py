"""`harness --help` answers at once: it imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    "torch", "optuna", "pandas", "numpy", "scipy", "sklearn", "onnx",
    "onnxruntime", "matplotlib", "sqlalchemy", "PIL", "pyarrow", "torchvision", "timm",
}  # fmt: skip


LIGHT = (
    ["--help"], ["search", "--help"], ["init", "--help"], ["models", "--help"], ["--version"],
    ["models"],
)  # fmt: skip


@pytest.mark.parametrize("arguments", LIGHT, ids=" ".join)
def test_help_and_lists_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; sys.argv = ['harness', *sys.argv[1:]]\n"
        "from harness.cli import main\n"
        "try:\n main()\n"
        "except SystemExit as exc:\n assert not exc.code\n"
        f"print('HEAVY', sorted({HEAVY!r} & sys.modules.keys()))"
    )
    ended = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip().endswith("HEAVY []")


def test_the_package_offers_what_it_names() -> None:
    import harness

    assert {"search", "plan", "replay", "bench"} < set(harness.__all__)
    for name in set(harness.__all__) - {"__version__"}:
        assert callable(getattr(harness, name)), name
    with pytest.raises(AttributeError):
        _ = harness.nothing


def test_another_system_gets_one_clear_message() -> None:
    code = "import sys; from harness.cli import main; sys.platform = 'win32'; main()"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 2
    assert "runs on Linux" in ended.stderr
    assert "Traceback" not in ended.stderr
