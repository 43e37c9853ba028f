"""Checkpoints that torch reads by default, and that run no code when they are loaded."""

import inspect
import io
import warnings
from typing import Any

import lightning
import numpy as np
import torch
from pytorch_forecasting.models.base import BaseModel
from torch import Tensor

from ...._messages import one_line, prefix_errors
from ...._safe_files.archive import Archive, device_of, read_archive
from ...._safe_files.errors import RejectedFileError
from ...._safe_files.serialization import deserialize, serialize
from ...._safe_files.sizes import check_expanded_size
from ...._upstream import HPARAMS_KEY, HPARAMS_TYPE_KEY, SPECIAL_HPARAMS_KEY
from ..arguments import argument_names
from .hparams_file import read_hparams
from .limits import (
    SizedHparams,
    check_hparam_sizes,
    check_weights_finite,
    check_weights_fit,
)

__all__ = ["SafeCheckpointMixin"]

_OBJECTS_KEY = "objects_of_hyper_parameters"
#: Hyper-parameters that every checkpoint has: a model must not silently get a default loss.
_REQUIRED_HPARAMS = ("loss", "output_transformer")
#: Entries in which Lightning looks for hyper-parameters, or for their class.
_FORBIDDEN_KEYS = ("hparams", "module_arguments", HPARAMS_TYPE_KEY)


class SafeCheckpointMixin(BaseModel):
    """A model of pytorch-forecasting whose checkpoints contain only plain data and tensors.

    pytorch-forecasting pickles loss, metrics, normalizers and the parameters of the dataset, so
    that ``torch.load`` rejects the file unless it may run code in it. Here they are serialized as
    plain data, and rebuilt from a list of safe classes.

    A model that resumes from a checkpoint, by ``trainer.fit(model, ckpt_path=...)``,
    ``trainer.test`` or ``Tuner.lr_find``, takes weights and states from the file, but keeps its
    loss, its normalizers and the parameters of its dataset.

    Attributes
    ----------
    sized_hparams : SizedHparams
        Hyper-parameters for which a file must contain enough weights.
    """

    sized_hparams = SizedHparams()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write loss, metrics, normalizers and so on as plain data."""
        super().on_save_checkpoint(checkpoint)
        hparams = checkpoint[HPARAMS_KEY] | checkpoint.pop(SPECIAL_HPARAMS_KEY)
        hparams["dataset_parameters"] = checkpoint.pop("dataset_parameters")
        plain = {name: _to_python_numbers(value) for name, value in hparams.items()}
        checkpoint[HPARAMS_KEY] = {n: value for n, value in plain.items() if _is_plain_data(value)}
        objects = serialize({n: v for n, v in hparams.items() if n not in checkpoint[HPARAMS_KEY]})
        if objects["unwritten"]:
            names = list(objects["unwritten"])
            arguments = ", ".join(f"{name}=..." for name in names)
            warnings.warn(
                f"{type(self).__name__}: the checkpoint is written without {' and '.join(names)}: "
                f"{objects['unwritten'][names[0]]}. Load it with load_from_checkpoint(path, "
                f"{arguments}).",
                stacklevel=2,
            )
        checkpoint[_OBJECTS_KEY] = objects
        for key in ("optimizer_states", "lr_schedulers"):  # a learning rate may be a NumPy number
            if key in checkpoint:
                checkpoint[key] = _to_python_numbers(checkpoint[key])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check weights and states; the model already has everything else."""
        with prefix_errors(type(self).__name__):
            check_expanded_size(
                {k: v for k, v in checkpoint.items() if k not in (HPARAMS_KEY, _OBJECTS_KEY)}
            )
            weights = checkpoint.get("state_dict")
            if isinstance(weights, dict):
                check_weights_finite(self, weights)

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
        """Load a model without running any code in the file.

        A checkpoint can name the classes of pytorch-forecasting, torchmetrics and scikit-learn that
        are on a list. Allow others with ``torch.serialization.add_safe_globals([MyLoss])``.

        Parameters
        ----------
        checkpoint_path : str, Path or file
            File, or URL, of the checkpoint.
        map_location : optional
            As in ``torch.load``.
        hparams_file : str or Path, optional
            File with hyper-parameters, which replace those of the checkpoint.
        strict : bool, optional
            Whether the weights must be exactly those of the model. Default: True.
        weights_only : bool, default True
            False unpickles the file, which can run any code: use it only for trusted files in
            pytorch-forecasting's own format.
        **kwargs
            Arguments of the model, which replace those of the checkpoint, for example
            ``loss=MyLoss()``.

        Returns
        -------
        ForecastingModel
            The model, on the device that its weights were saved from; in double precision if they
            are.

        Raises
        ------
        ValueError
            If the file names a class that is not allowed, lacks an object that could not be
            written, contains weights that are not finite, would expand to more than its size, or is
            damaged.
        pickle.UnpicklingError
            If the file contains a pickled object, or was not written by ``torch.save``.
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
        with prefix_errors(cls.__name__):
            checkpoint = cls._checked_content(archive, checkpoint_path)
            weights, hparams = checkpoint["state_dict"], checkpoint[HPARAMS_KEY]
            if hparams_file is not None:
                hparams = read_hparams(hparams_file)
            hparams = {**hparams, **cls._deserialize_objects(checkpoint, kwargs)}
            hparams.pop("_instantiator", None)
            cls._check_model(hparams, kwargs, weights)
        # Lightning gets nothing but weights from the file: it would call what other entries name
        try:
            model = super().load_from_checkpoint(
                _strip_checkpoint(cls, checkpoint),
                map_location="cpu",
                strict=strict,
                weights_only=True,
                **{**hparams, **kwargs, "_instantiator": None},
            )
        except RuntimeError as error:
            if not str(error).startswith("Error(s) in loading state_dict"):
                raise
            raise ValueError(
                f"{cls.__name__}: the weights in the checkpoint are not those of the model, "
                f"{' '.join(str(error).split()):.500}; load another one."
            ) from error
        if _is_double(weights):
            model.double().load_state_dict(weights, strict=strict is not False)
        locations = [archive.location_of(weight) for weight in weights.values()]
        return model.to(device_of(locations[0], map_location)) if locations else model

    @classmethod
    def _checked_content(cls, archive: Archive, name: Any) -> dict[str, Any]:
        """Return the content of a checkpoint, or raise if it is not as this class writes it."""
        checkpoint = archive.content
        for key in ("state_dict", HPARAMS_KEY):
            if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get(key), dict):
                raise ValueError(
                    f"{cls.__name__}: {name} must be a checkpoint, got a file without {key!r}; "
                    f"load another one."
                )
        for key in _FORBIDDEN_KEYS:
            if key in checkpoint:
                raise ValueError(
                    f"{cls.__name__}: {name} must be a checkpoint of {cls.__name__}, got a file "
                    f"with the entry {key!r}, which those never have; load another one."
                )
        objects = checkpoint.get(_OBJECTS_KEY)
        check_expanded_size(
            {key: checkpoint.get(key) for key in ("state_dict", HPARAMS_KEY, _OBJECTS_KEY)},
            objects.get("objects") if isinstance(objects, dict) else None,
            archive.size,
        )
        for key, weight in checkpoint["state_dict"].items():
            if not isinstance(key, str) or not isinstance(weight, Tensor):
                raise ValueError(
                    f"{cls.__name__}: the checkpoint must contain weights by name, got a "
                    f"{type(weight).__name__} named {key!r:.50}; load another one."
                )
        return checkpoint

    @classmethod
    def _check_model(
        cls, hparams: dict[str, Any], arguments: dict[str, Any], weights: dict[str, Tensor]
    ) -> None:
        """Raise if the weights do not fit hyper-parameters, before a model takes any memory.

        Parameters
        ----------
        hparams : dict
            Hyper-parameters in the file.
        arguments : dict
            Arguments of the user, which replace them.
        weights : dict of str to Tensor
            Weights in the file.
        """
        names = argument_names(cls)
        unknown = [name for name in hparams if name not in names]
        if unknown:
            raise ValueError(
                f"{cls.__name__}: the hyper-parameters must be arguments of {cls.__name__}, got "
                f"{unknown[0]!r:.50}; load another checkpoint."
            )
        missing = [name for name in _REQUIRED_HPARAMS if name not in {**hparams, **arguments}]
        if missing:
            raise ValueError(
                f"{cls.__name__}: the checkpoint must contain a {missing[0]}, got none; pass it, "
                f"load_from_checkpoint(path, {missing[0]}=...)."
            )
        from_file = {k: v for k, v in hparams.items() if k not in arguments}
        check_hparam_sizes(from_file, weights, cls.sized_hparams)
        in_package = cls.__init__.__module__.startswith("pytorch_forecasting_mlstm.")
        merged = {**hparams, **arguments}
        if in_package:  # it only stores these, and pytorch-forecasting takes seconds to dump them
            merged |= {"dataset_parameters": None, "embedding_labels": None}
        accepted = inspect.signature(cls.__init__).parameters
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in accepted.values()):
            merged = {name: value for name, value in merged.items() if name in accepted}
        try:
            check_weights_fit(lambda: cls(**merged), weights)
        except RejectedFileError:
            raise
        except Exception as error:  # crafted hyper-parameters can raise anything
            callers = tuple(f"{base.__name__}: " for base in cls.__mro__)
            if str(error).startswith(callers) and str(error) == one_line(error, 1000):
                raise
            if not in_package and isinstance(error, NotImplementedError | RuntimeError):
                return  # the constructor of a user's class may read tensors, which have no data yet
            raise ValueError(
                f"{cls.__name__}: no model can be made from the hyper-parameters in the "
                f"checkpoint, {type(error).__name__}: {one_line(error)}; it is damaged, or an "
                f"argument given to load_from_checkpoint does not fit it."
            ) from error

    @classmethod
    def _deserialize_objects(
        cls, checkpoint: dict[str, Any], arguments: dict[str, Any]
    ) -> dict[str, Any]:
        """Rebuild loss, normalizers and so on, except those that the user passes."""
        objects = checkpoint.get(_OBJECTS_KEY)
        if objects is None:
            raise ValueError(
                f"{cls.__name__}: expected a checkpoint of {cls.__name__}, got one without "
                f"{_OBJECTS_KEY!r}, which is of another model or was written without Lightning's "
                f"hooks; load another one."
            )
        unwritten = objects.get("unwritten") if isinstance(objects, dict) else None
        for name, reason in unwritten.items() if isinstance(unwritten, dict) else ():
            if name not in arguments:
                raise ValueError(
                    f"{cls.__name__}: the checkpoint contains no {name}, because {reason}; pass "
                    f"it, load_from_checkpoint(path, {name}=...)."
                )
        return deserialize(objects, arguments, "load_from_checkpoint(path, {}=...)")


def _strip_checkpoint(cls: type[SafeCheckpointMixin], checkpoint: dict[str, Any]) -> io.BytesIO:
    """Return a checkpoint from which Lightning cannot build anything but weights.

    A subclass with its own ``on_load_checkpoint`` also receives the entries that it may have
    written, but none that Lightning reads.
    """
    keys = ["state_dict"]
    if cls.on_load_checkpoint is not SafeCheckpointMixin.on_load_checkpoint:
        keys = [key for key in checkpoint if key not in (HPARAMS_KEY, _OBJECTS_KEY)]
    stripped = {key: checkpoint[key] for key in keys}
    stripped |= {HPARAMS_KEY: {}, "pytorch-lightning_version": lightning.__version__}
    stripped.pop(BaseModel.CHECKPOINT_HYPER_PARAMS_NAME, None)
    file = io.BytesIO()
    torch.save(stripped, file)
    file.seek(0)
    return file


def _is_double(weights: dict[str, Tensor]) -> bool:
    """Return whether weights are in double precision, which Lightning would load as single."""
    dtypes = [weight.dtype for weight in weights.values() if weight.is_floating_point()]
    return bool(dtypes) and all(dtype == torch.float64 for dtype in dtypes)


def _is_plain_data(value: Any) -> bool:
    """Return whether a value consists of Python's numbers, strings, lists, tuples and dicts."""
    if isinstance(value, list | tuple):
        return type(value) in (list, tuple) and all(map(_is_plain_data, value))
    if isinstance(value, dict):
        return type(value) is dict and all(
            type(key) in (str, int) and _is_plain_data(item) for key, item in value.items()
        )
    return type(value) in (str, int, float, bool, type(None))


def _to_python_numbers(value: Any) -> Any:
    """Convert NumPy numbers in a value, which torch does not read by default."""
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (list, tuple):
        return type(value)(_to_python_numbers(item) for item in value)
    if type(value) is dict:
        return {_to_python_numbers(key): _to_python_numbers(item) for key, item in value.items()}
    return value
