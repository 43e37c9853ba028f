"""Checkpoints that torch reads by default, and that run nothing when they are read."""

import inspect
import io
import warnings
from typing import Any

import lightning
import numpy as np
import torch
from pytorch_forecasting.models.base import BaseModel
from torch import Tensor

from .archive import (
    Archive,
    device_of,
    first_line,
    read_archive,
)
from .hparams_file import read_hparams
from .limits import (
    check_extent,
    check_finite,
    check_sizes,
    check_weights,
)
from .serialization import describe, rebuild

__all__ = ["SafeCheckpoints"]

_OBJECTS = "objects_of_hyper_parameters"
_PARAMETERS = BaseModel.CHECKPOINT_HYPER_PARAMS_KEY
_SPECIAL = BaseModel.CHECKPOINT_HYPER_PARAMS_SPECIAL_KEY
#: What every file of ours has among its hyper-parameters; the default of another loss is no loss.
_ALWAYS_WRITTEN = ("loss", "output_transformer")
#: Where Lightning looks for hyper-parameters, too, and for a class to put them in.
_NEVER_WRITTEN = ("hparams", "module_arguments", BaseModel.CHECKPOINT_HYPER_PARAMS_TYPE)


class SafeCheckpoints(BaseModel):
    """A model of the host whose checkpoints hold plain data and tensors alone.

    The host pickles loss, metrics, normalizers and the parameters of the dataset into the
    hyper-parameters, so that ``torch.load`` refuses the file unless it may run what the file says.
    Here they are written as plain data and made again from an explicit list of classes.

    A model that goes on from a checkpoint, by ``trainer.fit(model, ckpt_path=...)``,
    ``trainer.test`` or ``Tuner.lr_find``, keeps its own loss, normalizers and parameters of the
    dataset; it takes weights and states from the file.
    """

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write loss, metrics, normalizers and so on as plain data."""
        super().on_save_checkpoint(checkpoint)
        values = checkpoint[_PARAMETERS] | checkpoint.pop(_SPECIAL)
        values["dataset_parameters"] = checkpoint.pop("dataset_parameters")
        checkpoint[_PARAMETERS] = {k: _plain(v) for k, v in values.items() if _is_plain(_plain(v))}
        objects = describe({k: v for k, v in values.items() if k not in checkpoint[_PARAMETERS]})
        if objects["unwritten"]:
            names = list(objects["unwritten"])
            passed = ", ".join(f"{name}=..." for name in names)
            warnings.warn(
                f"mLSTMTime: the checkpoint is written without {' and '.join(names)}: "
                f"{objects['unwritten'][names[0]]}. Load it by load_from_checkpoint(path, "
                f"{passed}).",
                stacklevel=2,
            )
        checkpoint[_OBJECTS] = objects
        for part in ("optimizer_states", "lr_schedulers"):  # a learning rate may be one of NumPy's
            if part in checkpoint:
                checkpoint[part] = _plain(checkpoint[part])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take nothing but weights and states: the model has all else already."""
        check_extent({k: v for k, v in checkpoint.items() if k not in (_PARAMETERS, _OBJECTS)})
        weights = checkpoint.get("state_dict")
        if isinstance(weights, dict):
            check_finite(self, weights)

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Load a model.

        Nothing that the file says is run. Of classes it may name those of the host, of torchmetrics
        and scikit-learn's scalers that are on a list; others after
        ``torch.serialization.add_safe_globals([MyLoss])``.

        Parameters
        ----------
        checkpoint_path : str, Path or file
            File, or URL, of the checkpoint.
        map_location : optional
            As of ``torch.load``.
        hparams_file : str or Path, optional
            Hyper-parameters in the place of the file's.
        strict : bool, optional
            Whether all weights must be there, and no others. Default: yes.
        weights_only : bool, default True
            False unpickles the file, which may then run anything: for files that you trust, of the
            host's own format.
        **kwargs
            Arguments of the model in the place of the file's, ``loss=MyLoss()`` for example.

        Returns
        -------
        mLSTMTime
            The model, on the devices that its weights were on, and in their precision if that is
            double.

        Raises
        ------
        ValueError
            If the file holds a class that is not allowed, lacks what could not be written, holds
            weights that are not finite, asks for more than is in it, or is damaged.
        pickle.UnpicklingError
            If the file holds a pickled object, or was not written by ``torch.save``.
        """
        if not weights_only:
            return super().load_from_checkpoint(
                checkpoint_path,
                map_location=map_location,
                hparams_file=hparams_file,
                strict=strict,
                weights_only=False,
                **kwargs,
            )
        archive = read_archive(checkpoint_path, cls.__name__)
        written = cls._checked(archive, checkpoint_path)
        weights = written["state_dict"]
        stored = written[_PARAMETERS] if hparams_file is None else read_hparams(hparams_file)
        stored = {**stored, **cls._objects_of(written, kwargs)}
        stored.pop("_instantiator", None)
        cls._check_model(stored, kwargs, weights)
        # of the file, Lightning gets weights alone: it would call what other entries name
        try:
            model = super().load_from_checkpoint(
                _only_weights(cls, written),
                map_location="cpu",
                strict=strict,
                weights_only=True,
                **{**stored, **kwargs, "_instantiator": None},
            )
        except RuntimeError as error:
            if not str(error).startswith("Error(s) in loading state_dict"):
                raise
            raise ValueError(
                f"{cls.__name__}: the weights in the checkpoint are not those of the model, "
                f"{' '.join(str(error).split()):.500}; take another one."
            ) from error
        if _is_double(weights):
            model.double().load_state_dict(weights, strict=strict is not False)
        locations = [archive.location_of(weight) for weight in weights.values()]
        return model.to(device_of(locations[0], map_location)) if locations else model

    @classmethod
    def _checked(cls, archive: Archive, name: Any) -> dict[str, Any]:
        """Return what a file holds, if it is as our own files are, and no larger than it is."""
        written = archive.content
        for part in ("state_dict", _PARAMETERS):
            if not isinstance(written, dict) or not isinstance(written.get(part), dict):
                raise ValueError(
                    f"{cls.__name__}: {name} must be a checkpoint, it has no {part!r}; take "
                    f"another one."
                )
        for key in _NEVER_WRITTEN:
            if key in written:
                raise ValueError(
                    f"{cls.__name__}: {name} must be a checkpoint of {cls.__name__}, it has "
                    f"{key!r}, which those never have; take another one."
                )
        objects = written.get(_OBJECTS)
        check_extent(
            {part: written.get(part) for part in ("state_dict", _PARAMETERS, _OBJECTS)},
            objects.get("objects") if isinstance(objects, dict) else None,
            archive.size,
        )
        for key, weight in written["state_dict"].items():
            if not isinstance(key, str) or not isinstance(weight, Tensor):
                raise ValueError(
                    f"{cls.__name__}: the checkpoint must hold weights by name, got a "
                    f"{type(weight).__name__} by {key!r:.50}; take another one."
                )
        return written

    @classmethod
    def _check_model(
        cls, stored: dict[str, Any], given: dict[str, Any], weights: dict[str, Tensor]
    ) -> None:
        """Refuse hyper-parameters that make no model for the weights, before it takes memory."""
        names = _argument_names(cls)
        unknown = [name for name in stored if name not in names]
        if unknown:
            raise ValueError(
                f"{cls.__name__}: the hyper-parameters must be arguments of {cls.__name__}, got "
                f"{unknown[0]!r:.50}; take another checkpoint."
            )
        missing = [name for name in _ALWAYS_WRITTEN if name not in {**stored, **given}]
        if missing:
            raise ValueError(
                f"{cls.__name__}: the checkpoint is without its {missing[0]}; pass it, "
                f"load_from_checkpoint(path, {missing[0]}=...)."
            )
        check_sizes({k: v for k, v in stored.items() if k not in given}, weights)
        own = cls.__init__.__module__.startswith("pytorch_forecasting_mlstm.")
        arguments = {**stored, **given}
        if own:  # it keeps these as they are, and the host writes them out, which takes seconds
            arguments |= {"dataset_parameters": None, "embedding_labels": None}
        accepted = inspect.signature(cls.__init__).parameters
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in accepted.values()):
            arguments = {k: v for k, v in arguments.items() if k in accepted}
        try:
            check_weights(lambda: cls(**arguments), weights)
        except Exception as error:  # of the data of a stranger
            if str(error).startswith("mLSTMTime: ") and str(error) == first_line(error, 1000):
                raise
            if not own and isinstance(error, NotImplementedError | RuntimeError):
                return  # a class of the user's may read tensors while it is made
            raise ValueError(
                f"{cls.__name__}: no model can be made of the hyper-parameters in the checkpoint, "
                f"{type(error).__name__}: {first_line(error)}; it is damaged, or an argument given "
                f"to load_from_checkpoint does not fit it."
            ) from error

    @classmethod
    def _objects_of(cls, checkpoint: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
        objects = checkpoint.get(_OBJECTS)
        if objects is None:
            raise ValueError(
                f"{cls.__name__}: expected a checkpoint of {cls.__name__}, got one without "
                f"{_OBJECTS!r}, of other models or written without Lightning's hooks."
            )
        unwritten = objects.get("unwritten") if isinstance(objects, dict) else None
        for name, reason in unwritten.items() if isinstance(unwritten, dict) else ():
            if name not in given:
                raise ValueError(
                    f"{cls.__name__}: the checkpoint holds no {name}, as {reason}; pass it, "
                    f"load_from_checkpoint(path, {name}=...)."
                )
        return rebuild(objects, without=given)


def _only_weights(cls: type[SafeCheckpoints], written: dict[str, Any]) -> io.BytesIO:
    """Write a checkpoint that has nothing for Lightning to make of but weights.

    A class of the user's that reads entries of its own gets the others back, but none of those that
    Lightning reads.
    """
    keys = ["state_dict"]
    if cls.on_load_checkpoint is not SafeCheckpoints.on_load_checkpoint:
        keys = [key for key in written if key not in (_PARAMETERS, _OBJECTS)]
    only = {key: written[key] for key in keys}
    only |= {_PARAMETERS: {}, "pytorch-lightning_version": lightning.__version__}
    only.pop(BaseModel.CHECKPOINT_HYPER_PARAMS_NAME, None)
    file = io.BytesIO()
    torch.save(only, file)
    file.seek(0)
    return file


def _argument_names(cls: type) -> set[str]:
    """Return the arguments of a class, and of those that it passes the others on to."""
    names: set[str] = set()
    for part in cls.__mro__[: cls.__mro__.index(BaseModel) + 1]:
        if "__init__" in vars(part):
            names |= set(inspect.signature(vars(part)["__init__"]).parameters)
    return names - {"self", "args", "kwargs"}


def _is_double(weights: dict[str, Tensor]) -> bool:
    """Return whether weights are in double precision, which Lightning would cut to single."""
    reals = [weight.dtype for weight in weights.values() if weight.is_floating_point()]
    return bool(reals) and all(dtype == torch.float64 for dtype in reals)


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return type(value) in (list, tuple) and all(_is_plain(part) for part in value)
    if isinstance(value, dict):
        return type(value) is dict and all(
            type(key) in (str, int) and _is_plain(part) for key, part in value.items()
        )
    return type(value) in (str, int, float, bool, type(None))


def _plain(value: Any) -> Any:
    """Bring numbers of NumPy, which torch does not read by default, to those of Python."""
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (list, tuple):
        return type(value)(_plain(part) for part in value)
    if type(value) is dict:
        return {_plain(key): _plain(part) for key, part in value.items()}
    return value
