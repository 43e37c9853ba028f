"""Checkpoints that torch reads by default, and that run nothing when they are read."""

import warnings
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities.cloud_io import _load
from pytorch_forecasting.models.base import BaseModel
from torch import Tensor

from .serialization import describe, rebuild

__all__ = ["SafeCheckpoints"]

_OBJECTS = "objects_of_hyper_parameters"
_PARAMETERS = BaseModel.CHECKPOINT_HYPER_PARAMS_KEY
_SPECIAL = BaseModel.CHECKPOINT_HYPER_PARAMS_SPECIAL_KEY


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
            If the file holds a class that is not allowed, lacks what could not be written, or is
            damaged.
        pickle.UnpicklingError
            If the file holds a pickled object, or is no checkpoint.
        RuntimeError
            If it is an archive of before 2016 or of TorchScript.
        """
        if weights_only:
            # read first: releases of Lightning before 2.6 unpickle anything
            written = cls._read(checkpoint_path)
            if hasattr(checkpoint_path, "seek"):
                checkpoint_path.seek(0)
            kwargs = {**cls._objects_of(written, kwargs), **kwargs}
        model = super().load_from_checkpoint(
            checkpoint_path,
            map_location=map_location,
            hparams_file=hparams_file,
            strict=strict,
            weights_only=weights_only,
            **kwargs,
        )
        if weights_only and _is_double(written["state_dict"]):
            model.double().load_state_dict(written["state_dict"], strict=strict is not False)
        return model

    @classmethod
    def _read(cls, checkpoint_path: Any) -> dict[str, Any]:
        try:
            written = _load(checkpoint_path, "cpu", weights_only=True)
        except EOFError as error:
            raise ValueError(
                f"{cls.__name__}: {checkpoint_path} must be a checkpoint, it is empty or cut off; "
                f"take another one."
            ) from error
        for part in ("state_dict", _PARAMETERS):
            if not isinstance(written, dict) or not isinstance(written.get(part), dict):
                raise ValueError(
                    f"{cls.__name__}: {checkpoint_path} must be a checkpoint, it has no {part!r}; "
                    f"take another one."
                )
        return dict(written)

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
        # an importer of classes by their path, which Lightning before 2.6 calls unchecked
        nothing = {"_instantiator": None} if "_instantiator" in checkpoint[_PARAMETERS] else {}
        return {**rebuild(objects, without=given), **nothing}


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
