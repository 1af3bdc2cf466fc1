"""The one exception tree: every class carries its exit code, every message says what to do next."""

from __future__ import annotations


class MaskedgeError(Exception):
    """Base of everything this program raises on purpose.

    Attributes:
        exit_code: what the process returns when this error ends it.
        remedy: one line that tells the user what to do next, or "".
    """

    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}: {self.remedy}" if self.remedy else message


class InputError(MaskedgeError):
    """A picture or clip cannot be read: missing, truncated, empty or of an unknown kind."""

    exit_code = 1


class UsageError(MaskedgeError):
    """Wrong option, value or configuration file."""

    exit_code = 2


class ModelError(MaskedgeError):
    """A model is missing, damaged, or does not fit the installed runtime."""

    exit_code = 3


class RuntimeMissingError(ModelError):
    """No TFLite runtime works on this machine."""


class CameraError(MaskedgeError):
    """No camera, or it was lost for longer than the time-out."""

    exit_code = 4


class NobodyEnrolledError(MaskedgeError):
    """There are no templates to compare a face with."""

    exit_code = 5


class SinkError(MaskedgeError):
    """An output cannot be written: full disk, no permission, no display."""

    exit_code = 1
