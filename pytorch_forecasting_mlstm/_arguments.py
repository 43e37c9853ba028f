"""Arguments that a function does not have, with a guess at what was meant."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import wraps
from typing import ParamSpec, TypeVar

__all__ = ["suggest_arguments", "unknown_argument"]

P = ParamSpec("P")
R = TypeVar("R")


def unknown_argument(
    caller: str, argument: str, names: Iterable[str], hints: Mapping[str, str]
) -> TypeError:
    """Return an error that names what was probably meant.

    Parameters
    ----------
    caller : str
        Name to begin the message with.
    argument : str
        Argument that there is not.
    names : iterable of str
        Arguments that there are.
    hints : mapping of str to str
        For names that other libraries have: the argument of the same meaning, or if there is none,
        what to do instead.

    Examples
    --------
    >>> names, hints = ["num_heads", "dropout"], {"nhead": "num_heads", "bias": "leave it out"}
    >>> for argument in ("nhead", "dropuot", "bias"):
    ...     print(unknown_argument("mLSTMLayer", argument, names, hints))
    mLSTMLayer: there is no argument 'nhead'; did you mean num_heads?
    mLSTMLayer: there is no argument 'dropuot'; did you mean dropout?
    mLSTMLayer: there is no argument 'bias'; leave it out.
    """
    names, hint = sorted(names), hints.get(argument)
    if hint is None:
        hint = next(iter(get_close_matches(argument, names, n=1)), None)
    if hint is None:
        advice = "see help() for its arguments."
    elif hint in names:
        advice = f"did you mean {hint}?"
    elif hint.isidentifier():  # the function lacks that argument, too
        advice = "see help() for its arguments."
    else:
        advice = f"{hint}."
    return TypeError(f"{caller}: there is no argument {argument!r}; {advice}")


def suggest_arguments(
    hints: Mapping[str, str],
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a method name the argument that was meant when it gets one that it does not have.

    Signature and documentation stay those of the method.

    Parameters
    ----------
    hints : mapping of str to str
        As for :func:`unknown_argument`.
    """

    def decorate(method: Callable[P, R]) -> Callable[P, R]:
        names = inspect.signature(method).parameters.keys() - {"self"}

        @wraps(method)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            if not kwargs.keys() <= names:
                argument = next(name for name in kwargs if name not in names)
                caller = type(args[0]).__name__
                if method.__name__ != "__init__":
                    caller += f".{method.__name__}"
                raise unknown_argument(caller, argument, names, hints)
            return method(*args, **kwargs)

        return checked

    return decorate
