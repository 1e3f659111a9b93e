"""The errors that reach a person: what was wrong, where, and what to do next.

Library code raises these and nothing else for a foreseeable fault; the command line turns each into one or two
lines on stderr and an exit code. This module knows nothing of the rest of the package.
"""

from __future__ import annotations


class ClvpError(Exception):
    """A foreseeable failure.

    Args:
        message: what was wrong and where, one line, no full stop needed.
        hint: what the person can do about it, one line.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(ClvpError):
    """The request itself makes no sense: an option out of range, two options that exclude each other."""

    exit_code = 2


class ConfigError(UsageError):
    """A YAML file or a model's config.json that cannot be used: an unknown key, a value of the wrong type."""


class InputError(ClvpError, ValueError):
    """Data that a person handed in and that cannot be used: text, audio, candidates, manifests."""


class TextError(InputError):
    """Text that cannot be spoken: empty after normalisation, or longer than the model reads."""


class AudioError(InputError):
    """Audio that cannot be used: empty, not finite, of no known format, without a sample rate."""


class CandidateError(InputError):
    """A candidate file, or a row in one, that cannot be used."""


class CheckpointError(ClvpError, ValueError):
    """Model weights that cannot be loaded: a missing, extra or misshapen key, a damaged or unsafe file."""


class OutputError(ClvpError, OSError):
    """A result that could not be written: a full disk, a read-only directory, a file that must not be replaced."""


class RowsFailedError(ClvpError):
    """Some rows failed or abstained, and the caller asked for that to count (--strict)."""

    exit_code = 3
