"""The exceptions that fastgan raises for what a user can mend: each carries one sentence that says what to do."""


class FastganError(Exception):
    """Base of fastgan's own errors; ``str(error)`` is a sentence: which input, what is wrong, what to do."""


class ConfigError(FastganError, ValueError):
    """An option or a configuration field is wrong by itself, whatever files or devices there are (exit code 2)."""


class DataError(FastganError):
    """A data set, or a file of samples, is missing, damaged or not what its name says (exit code 1)."""


class RunError(FastganError):
    """A run's folder or checkpoint is missing, damaged, of another version, or in use (exit code 1)."""


class BackendError(FastganError):
    """A backend, device or extra that was asked for is not to be had here (exit code 1)."""


class NonFiniteError(FastganError):
    """Training met a NaN or an infinity in a loss, gradient or weight; nothing good was overwritten (exit code 1)."""


class CollapseError(FastganError):
    """The game is lost for the generator, and the run was to stop then; it was saved (exit code 1)."""


class NotEnoughMemoryError(FastganError, MemoryError):
    """What was asked for does not fit into this machine's memory (exit code 1)."""


class FastganWarning(UserWarning):
    """Something that a user should know and that did not stop the work."""


def one_line(error: BaseException) -> str:
    """Give another's error message on one line, or the error's name where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
