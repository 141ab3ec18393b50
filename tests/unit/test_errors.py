from __future__ import annotations

import pytest

from harness import errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError, 2),
        (errors.BackendUnavailable, 2),
        (errors.StudyLocked, 75),
        (errors.TaskError, 5),
        (errors.ExportError, 5),
        (errors.MeasurementError, 5),
        (errors.ResultsError, 5),
        (errors.BackendError, 5),
        (errors.DeviceLost, 5),
    ],
)
def test_every_error_is_ours_and_has_its_exit_code(
    error: type[errors.HarnessError], code: int
) -> None:
    assert issubclass(error, errors.HarnessError)
    assert error.exit_code == code


def test_bad_input_is_a_value_error_and_a_lost_device_a_backend_error() -> None:
    assert issubclass(errors.ConfigError, ValueError)
    assert issubclass(errors.DeviceLost, errors.BackendError)
