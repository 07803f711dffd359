"""The one kind of error that is meant for the user's eyes."""

__all__ = ["InputError"]


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one whole sentence that says what was wrong and what to do about it. The command line
    prints it without a traceback; everything else that is raised is a fault of the program.
    """
