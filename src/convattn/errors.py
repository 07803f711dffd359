"""The error that a user can cause."""

__all__ = ["InputError"]


class InputError(ValueError):
    """An input from the user cannot be used.

    The message is one whole sentence that says what was wrong and what to do about it. The command line
    prints it without a traceback. Any other exception is a bug of the program.
    """
