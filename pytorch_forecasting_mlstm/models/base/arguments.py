"""Arguments that a model does not have, with a guess at what was meant."""

import inspect
from collections.abc import Iterable
from difflib import get_close_matches

from pytorch_forecasting.models.base import BaseModel

__all__ = ["argument_names", "check_arguments"]

#: Names that other models and libraries have for the same.
_SYNONYMS = {
    "attention_head_size": "num_heads",
    "n_heads": "num_heads",
    "nhead": "num_heads",
    "lr": "learning_rate",
    "hidden_dim": "hidden_size",
    "d_model": "hidden_size",
    "lstm_layers": "num_layers",
    "n_layers": "num_layers",
    "rnn_layers": "num_layers",
    "num_blocks": "num_layers",
    "dropout_rate": "dropout",
    "patch_len": "patch_length",
    "patch_size": "patch_length",
    "kernel_size": "moving_averages",
    "moving_avg": "moving_averages",
    "input_size": "max_encoder_length",
    "context_length": "max_encoder_length",
    "horizon": "max_prediction_length",
    "prediction_length": "max_prediction_length",
    "use_revin": "instance_normalization",
    "revin": "instance_normalization",
    "criterion": "loss",
    "metrics": "logging_metrics",
}


def argument_names(cls: type) -> set[str]:
    """Return the arguments of a model class and of its bases up to ``BaseModel``."""
    names: set[str] = set()
    for base in cls.__mro__[: cls.__mro__.index(BaseModel) + 1]:
        if "__init__" in vars(base):
            names |= set(inspect.signature(vars(base)["__init__"]).parameters)
    return names - {"self", "args", "kwargs"}


def check_arguments(cls: type, arguments: Iterable[str]) -> None:
    """Raise if a model class lacks an argument.

    Parameters
    ----------
    cls : type
        Class of the model.
    arguments : iterable of str
        Names of what the user passes.

    Raises
    ------
    TypeError
        With the argument that was probably meant.
    """
    names = argument_names(cls)
    for argument in arguments:
        if argument in names:
            continue
        guess = _SYNONYMS.get(argument)
        guesses = [guess] if guess in names else get_close_matches(argument, sorted(names), n=1)
        hint = f"did you mean {guesses[0]}?" if guesses else "see help() for its arguments."
        raise TypeError(f"{cls.__name__}: there is no argument {argument!r}; {hint}")
