"""The errors a user can meet. Each names the thing that is wrong and, where there is one, the remedy."""

from __future__ import annotations


class LrcError(Exception):
    """Base of every expected failure.

    Args:
        message: what is wrong, naming the layer, file or value.
        remedy: what the user can do about it; shown after the message.

    Attributes:
        lasting: whether what was asked for is wrong in itself, so that asking again can only fail again.
    """

    lasting = False

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class BudgetError(LrcError):
    """A target that no plan can meet."""

    lasting = True


class PlanError(LrcError):
    """A plan that cannot be read, or that belongs to another model."""


class OtherModelError(PlanError):
    """A plan that belongs to another model."""

    lasting = True


class SettingsError(LrcError):
    """A setting that is unknown, of the wrong type or out of range."""

    lasting = True


class UnknownNameError(LrcError):
    """A registry was asked for a name it does not have."""


class ModelError(LrcError):
    """A model that cannot be found, read or compressed."""


class PackError(LrcError):
    """The starter pack cannot be fetched or does not match its checksum."""


class TextError(LrcError):
    """A text that cannot be read or is too short."""


class ExportError(LrcError):
    """A folder that was written and is not the model that it was written from."""


class NumericalError(LrcError):
    """A loss, weight or moment that is not finite."""


class EvaluationError(LrcError):
    """An evaluation task that is unknown or cannot run."""


class RunError(LrcError):
    """A run folder that is missing, damaged or in the wrong state for what was asked."""


class RecordError(RunError):
    """A record that is missing, is no JSON, or holds what it cannot hold.

    Args:
        message: names the file and the field.
        remedy: as of every error.
        field: the field, with dots where it lies in another; "" where it is the whole file.
    """

    def __init__(self, message: str, remedy: str = "", where: str = "", field: str = "") -> None:
        super().__init__(message, remedy)
        self.where = where
        self.field = field


class ResourceError(LrcError):
    """Not enough memory or disk for what was asked."""


class ReadOnlyError(LrcError):
    """Something would be started, changed or deleted where that is switched off."""


class SharedServerError(LrcError):
    """What a visitor of a shared server may not do."""


class CancelledError(LrcError):
    """The work was stopped because the user asked for it; nothing is wrong."""
