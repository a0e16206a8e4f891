"""Errors that a user can act on; the command line prints them as one line and exits with code 2.

Any other exception is a bug of kinema and shows its traceback.
"""

import difflib
from collections.abc import Collection, Sequence
from pathlib import Path


class KinemaError(Exception):
    """Base class of all errors caused by input: files, options, recipes, manifests, weights.

    Args:
        message: One line with the place, the problem and the fix.
        path: File or URL that causes the error.
        line: Line in that file, from 1.
        field: Field, option or column that causes the error, as the user writes it: `clip.frames`.
    """

    def __init__(
        self, message: str = "", *, path: str | Path | None = None, line: int | None = None, field: str | None = None
    ) -> None:
        super().__init__(message)
        self.path = None if path is None else str(path)
        self.line = line
        self.field = field


class UsageError(KinemaError, ValueError):
    """Raised when options of a command are unknown, missing or contradict each other."""


class ConfigError(KinemaError, ValueError):
    """Raised when a config cannot be built: a field is unknown, missing, or violates its type or constraint."""


class ClipError(KinemaError, ValueError):
    """Raised when a network does not support the channels, frames or size of a clip."""


class UnreadableVideo(KinemaError, RuntimeError):
    """Raised when a video, a folder of images or an array cannot be read."""


class BackendError(KinemaError, ValueError):
    """Raised when a decoding backend is not installed or does not load."""


class ManifestError(KinemaError, ValueError):
    """Raised when a manifest is malformed, incomplete, or does not fit the model."""


class UnreadableSample(KinemaError, RuntimeError):
    """Raised when a sample of a manifest cannot be read."""


class PackError(KinemaError, RuntimeError):
    """Raised when a dataset cannot be packed."""


class UnknownModel(KinemaError, ValueError):
    """Raised when no model has the given name."""


class UnknownField(KinemaError, ValueError):
    """Raised when a config has no field of the given name."""


class StreamError(KinemaError, ValueError):
    """Raised when the given modalities do not fit the network."""


class I3DError(KinemaError, ValueError):
    """Raised when a file of I3D weights is incomplete or has unexpected tensors."""


class ViTError(KinemaError, ValueError):
    """Raised when a file of ViT weights is incomplete, or does not fit the network."""


class ModelError(KinemaError, ValueError):
    """Raised when a trained model cannot be loaded, or does not fit the input."""


class DeviceError(KinemaError, ValueError):
    """Raised when the requested device is not available."""


class VideoError(KinemaError, ValueError):
    """Raised when a video given to a recognizer cannot be used."""


class PredictionsError(KinemaError, ValueError):
    """Raised when a predictions file cannot be read or written, or does not support the requested metric."""


class ComparisonError(PredictionsError):
    """Raised when two sets of predictions cannot be compared."""


class UnwrittenPredictions(PredictionsError):
    """Raised when predictions cannot be written after an evaluation; `evaluation` is its result."""

    def __init__(self, message: str, *, path: str | Path, evaluation: object) -> None:
        super().__init__(message, path=path, field="out")
        self.evaluation = evaluation


class CacheError(KinemaError, OSError):
    """Raised when kinema's cache cannot be written; `field` is the option that moves it."""


class NonFiniteLogits(KinemaError, RuntimeError):
    """Raised when a network returns logits that are not finite."""


class RecipeError(KinemaError, ValueError):
    """Raised when a recipe cannot be found, parsed or built."""


class RunError(KinemaError, ValueError):
    """Raised when a run folder is missing, in use, damaged, or cannot be resumed."""


class StartError(KinemaError, ValueError):
    """Raised when weights cannot be loaded into a network, or a part to freeze does not exist."""


class NonFiniteLoss(KinemaError, RuntimeError):
    """Raised when the loss or the gradient norm is not finite."""


class TableError(KinemaError, ValueError):
    """Raised when a table cannot be generated from the stored results."""


class TrainingStopped(KinemaError, RuntimeError):
    """Raised when a signal stopped a training after it saved its state; the message has instructions to resume."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


def one_line(error: BaseException, limit: int = 300) -> str:
    """Return the message of another library's error, or its type, on one line of at most `limit` characters."""
    return " ".join(str(error).split())[:limit] or type(error).__name__


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Return the hint for a message about an unknown name: the closest known name, or all of them."""
    matches = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f"did you mean {matches[0]!r}?" if matches else f"expected one of {', '.join(sorted(known))}"


def examples(names: Sequence[str], most: int = 3) -> str:
    """Return the first names as text, with the number of the others."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
