"""The error that a user can cause."""

__all__ = ["InputError", "unfit_torchvision"]


class InputError(ValueError):
    """An input from the user cannot be used.

    The message is one whole sentence that says what was wrong and what to do about it. The command line
    prints it without a traceback. Any other exception is a bug of the program.
    """


def unfit_torchvision(package: str, error: Exception) -> InputError:
    """Return the error of a package that cannot be imported because torchvision and torch do not fit.

    Args:
        package: Name of the package, which imports torchvision.
        error: What torchvision raised.
    """
    return InputError(
        f"{package} cannot be imported, because torchvision and torch do not belong together ({error}); "
        "reinstall both at once, as pytorch.org shows, or uninstall torchvision."
    )
