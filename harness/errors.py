"""The error tree.

HarnessError
├── ConfigError          usage or bad input; also a ValueError          exit 2
│   └── BackendUnavailable   the target can't be used here, with the remedy
├── StudyLocked          another process works on the same study        exit 75
├── TaskError            a model or data set can't be used              exit 5
├── ExportError          torch -> ONNX failed                           exit 5
├── MeasurementError     a latency can't be computed                    exit 5
├── ResultsError         the results folder can't be written (disk)     exit 5
├── DeviceUnreachable    a board can't be reached, or not any more      exit 5
└── BackendError         a runtime failed                               exit 5
    ├── CandidateFailed  it failed on one model of several; says which
    ├── DeviceLost       the process that timed went away
    └── ConnectionLost   the way to the device broke; it can be tried again
"""

from __future__ import annotations


class HarnessError(Exception):
    """Base of every error that this project raises on purpose.

    The message says what was expected, what was received and what to do.
    """

    exit_code = 5


class ConfigError(HarnessError, ValueError):
    """Usage or input that the user can mend."""

    exit_code = 2


class BackendUnavailable(ConfigError):
    """A target or its runtime can't be used on this machine; the message has the remedy."""


class StudyLocked(HarnessError):
    """Another process holds the study."""

    exit_code = 75


class TaskError(HarnessError):
    """A task's model or data can't be used."""


class ExportError(HarnessError):
    """The network could not be exported to ONNX, or the export is not what was asked."""


class MeasurementError(HarnessError):
    """Too little or unusable data for the figure asked."""


class ResultsError(HarnessError):
    """A result could not be written."""


class DeviceUnreachable(HarnessError):
    """A board can't be reached. No candidate is to blame: whatever was going on has to stop.

    Args:
        message: Why, and what to do.
        passing: Whether it may pass by itself, as while a board starts.
    """

    def __init__(self, message: str, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


class BackendError(HarnessError):
    """A runtime refused or failed."""


class CandidateFailed(BackendError):
    """A runtime refused a model, or its process died of it.

    Args:
        subject: The model's name in the measurement.
        cause: What happened.
    """

    def __init__(self, subject: str, cause: BackendError) -> None:
        super().__init__(str(cause))
        self.subject = subject


class DeviceLost(BackendError):
    """The process that was timing went away."""


class ConnectionLost(BackendError):
    """The way to the device broke: what was going on there has to be done again."""
