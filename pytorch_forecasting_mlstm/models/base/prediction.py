"""Predictions as the host gives them, complete and in order, in the cases where its own are not.

Horizons of several lengths, callbacks of the user's, arguments used twice, raw output on the disk,
double precision, and several processes.
"""

import logging
from collections import namedtuple
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning import Trainer
from lightning.pytorch.trainer.states import TrainerStatus
from lightning.pytorch.utilities import CombinedLoader
from pytorch_forecasting import TimeSeriesDataSet
from pytorch_forecasting.models.base import BaseModel
from pytorch_forecasting.models.base._base_model import PredictCallback, Prediction
from pytorch_forecasting.utils import OutputMixIn, to_list
from torch import Tensor, distributed
from torch.utils.data import DataLoader

from .padding import valid_steps

__all__ = ["GatheredPredictions", "Output"]

_MODES = ("prediction", "quantiles", "raw")


class Output(OutputMixIn, namedtuple("output", ["prediction"])):
    """Output of the network: the host's own class is a local one, which cannot be pickled."""


class GatheredPredictions(BaseModel):
    """A model of the host whose predictions are gathered by :class:`Gather`."""

    def to_network_output(self, **results: Any) -> Any:
        """Name the fields of the network's output."""
        if results.keys() == {"prediction"}:
            return Output(**results)
        return super().to_network_output(**results)  # of a model derived from this one

    def setup(self, stage: str) -> None:
        """Check that every process has a window to predict."""
        super().setup(stage)
        if stage == "predict" and self.trainer.world_size > 1:
            check_windows(self.trainer)

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        """Return the network's output, for ``trainer.predict`` too."""
        x, y = batch
        kwargs = {}
        for callback in self.trainer.callbacks:
            if isinstance(callback, PredictCallback):
                kwargs = callback.predict_kwargs
        return self.step(x, y, batch_idx, **kwargs)[1]

    def predict(
        self,
        data: Any,
        mode: str | tuple[str, str] = "prediction",
        return_index: bool = False,
        return_decoder_lengths: bool = False,
        batch_size: int = 64,
        num_workers: int = 0,
        fast_dev_run: bool = False,
        return_x: bool = False,
        return_y: bool = False,
        mode_kwargs: dict[str, Any] | None = None,
        trainer_kwargs: dict[str, Any] | None = None,
        write_interval: str = "batch",
        output_dir: str | Path | None = None,
        **kwargs: Any,
    ) -> Any:
        """Predict, as the host does it."""
        check_mode(mode)
        if self._trainer is not None and self._trainer.state.status == TrainerStatus.RUNNING:
            raise ValueError(
                "mLSTMTime: the model must not be in the hands of a running trainer to predict or "
                "forecast, which takes a trainer of its own; do it afterwards, or read the "
                "forecasts of a batch, model.to_prediction(model(x))."
            )
        trainer_kwargs = {
            "enable_progress_bar": False,
            "inference_mode": False,
            **(trainer_kwargs or {}),
        }
        if "fast_dev_run" in trainer_kwargs:
            raise ValueError(
                "mLSTMTime: fast_dev_run must be an argument of predict, got it in trainer_kwargs; "
                "pass predict(..., fast_dev_run=True)."
            )
        if isinstance(data, TimeSeriesDataSet):
            data = data.to_dataloader(train=False, batch_size=batch_size, num_workers=num_workers)
        if not isinstance(getattr(data, "dataset", None), TimeSeriesDataSet):
            raise TypeError(
                f"mLSTMTime: data to predict must be a DataFrame, a TimeSeriesDataSet or a loader "
                f"of one, got {type(data).__name__}."
            )
        if output_dir is not None:
            Path(output_dir).mkdir(parents=True, exist_ok=True)
        gather = Gather(
            mode=mode,
            return_index=return_index,
            return_decoder_lengths=return_decoder_lengths,
            return_x=return_x,
            return_y=return_y,
            mode_kwargs=mode_kwargs,
            write_interval=write_interval,
            output_dir=output_dir,
            predict_kwargs=kwargs,
        )
        callbacks = [*to_list(trainer_kwargs.pop("callbacks", None) or []), gather]
        with _quiet():
            trainer = Trainer(fast_dev_run=fast_dev_run, callbacks=callbacks, **trainer_kwargs)
            trainer.predict(self, data, return_predictions=False)
        return gather.result


def check_windows(trainer: Any) -> None:
    """Raise if there are more processes than windows: Lightning fails with a bare assertion.

    In validation and tests Lightning repeats windows instead.
    """
    source = trainer.predict_loop._data_source
    loaders = CombinedLoader(source.dataloader(), "sequential").flattened
    for loader in loaders:
        # Lightning splits a loader in the cases of this method
        if isinstance(loader, DataLoader) and trainer._data_connector._requires_distributed_sampler(
            loader
        ):
            windows, processes = len(loader.sampler), trainer.world_size  # type: ignore[arg-type]
            if 0 < windows < processes:
                raise ValueError(
                    f"mLSTMTime: each process must have a window to predict, got {windows} "
                    f"window(s) for {processes} processes; predict with a Trainer of "
                    f"devices={windows} or fewer, in model.predict and forecast by "
                    f"trainer_kwargs={{'devices': 1}}."
                )


def check_mode(mode: Any) -> None:
    """Raise if there is no such mode."""
    raw = isinstance(mode, tuple | list) and len(mode) == 2 and mode[0] == "raw"
    if not raw and mode not in _MODES:
        raise _no_such(mode, ["prediction"])


class Gather(PredictCallback):
    """Keeps what is predicted batch by batch, or writes it, and joins it in the end.

    The host's callback, of which it takes the arguments. Beyond that one, batches may have horizons
    of several lengths; several processes give their parts to each other; and what is written at
    the end of an epoch is what would have been returned.
    """

    def _reset_data(self, result: bool = True) -> None:
        self._parts: list[dict[str, Any]] = []
        self._numbers: list[int] = []
        self._result: Any = None

    def on_predict_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep a batch, or write it."""
        x, y = batch
        part = {"output": self._read(pl_module, outputs, x["decoder_lengths"])}
        if self.return_x:
            part["x"] = x
        if self.return_index:
            part["index"] = trainer.predict_dataloaders.dataset.x_to_index(x)
        if self.return_decoder_lengths:
            part["decoder_lengths"] = x["decoder_lengths"]
        if self.return_y:
            part["y"] = y
        part = _to_cpu(part)
        if self.output_dir is not None and self.interval.on_batch:
            torch.save(Prediction(**part), self._path(trainer, f"predictions_{batch_idx}"))
        if self.output_dir is None or self.interval.on_epoch:
            self._parts.append(part)
            if trainer.world_size > 1:
                self._numbers.extend(trainer.predict_loop.current_batch_indices)

    def _read(self, model: Any, out: Any, lengths: Tensor) -> Any:
        """Read off the network's output what the mode asks for."""
        if isinstance(self.mode, tuple | list):
            if self.mode[1] not in out.keys():  # a tuple, whose keys are the names of its fields
                raise _no_such(self.mode, out.keys())
            return out[self.mode[1]]
        if self.mode == "raw":
            return out
        read = model.to_prediction if self.mode == "prediction" else model.to_quantiles
        values = read(out, **self.mode_kwargs)
        masked = [_mask(part, lengths) for part in to_list(values)]
        return masked if isinstance(values, list | tuple) else masked[0]

    def on_predict_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Join all batches, and write them if that is asked for."""
        if not self._parts:
            return
        joined = {
            name: _join([part[name] for part in self._parts], name) for name in self._parts[0]
        }
        if self.output_dir is None and trainer.world_size > 1:
            joined = _exchange(joined, self._numbers)
        result = Prediction(**joined) if len(joined) > 1 else joined["output"]
        self._reset_data()
        if self.output_dir is None:
            self._result = result
        else:
            torch.save(result, self._path(trainer, "predictions"))

    def _path(self, trainer: Any, name: str) -> Path:
        rank = f"_rank{trainer.global_rank}" if trainer.world_size > 1 else ""
        return Path(self.output_dir, f"{name}{rank}.pt")

    @property
    def result(self) -> Any:
        """What was predicted, or None if it was written."""
        if self._result is None and self.output_dir is None:
            raise ValueError(
                "mLSTMTime: predictions must be made in the process that asks for them, got none "
                "here; in trainer_kwargs pass strategy='ddp' in the place of one that spawns "
                "processes, or devices=1, and let it have batches."
            )
        return self._result


def _no_such(mode: Any, fields: Iterable[str]) -> ValueError:
    known = [*_MODES, *(("raw", field) for field in fields)]
    return ValueError(f"mLSTMTime: mode must be one of {known}, got {mode!r}.")


def _mask(values: Tensor, lengths: Tensor) -> Tensor:
    """Put NaN for steps after the horizon of a sample, in (B, T) or (B, T, Q), where it can be."""
    if not values.is_floating_point():
        return values
    beyond = ~valid_steps(lengths, values.shape[1])
    return values.masked_fill(beyond.reshape(*beyond.shape, *[1] * (values.ndim - 2)), torch.nan)


def _to_cpu(part: Any) -> Any:
    if isinstance(part, Tensor):
        return part.detach().cpu()
    if isinstance(part, dict):
        return {name: _to_cpu(value) for name, value in part.items()}
    if isinstance(part, OutputMixIn):
        return type(part)(*map(_to_cpu, part))
    if isinstance(part, list | tuple):
        return type(part)(map(_to_cpu, part))
    return part


def _join(parts: list[Any], name: str) -> Any:
    """Join batches of tensors, or of lists, tuples and dicts of these.

    Shorter ones are filled up: output with NaN if it can be, all else with zeros, as the host's
    loader does it within a batch.
    """
    first = parts[0]
    if isinstance(first, Tensor):
        if first.ndim > 1:
            width = max(part.shape[1] for part in parts)
            value = torch.nan if name == "output" and first.is_floating_point() else 0
            parts = [_widen(part, width, value) for part in parts]
        return torch.cat(parts)
    if isinstance(first, dict):
        return {key: _join([part[key] for part in parts], name) for key in first}
    if isinstance(first, list | tuple):
        joined = [_join(list(own), name) for own in zip(*parts, strict=True)]
        return type(first)(*joined) if isinstance(first, OutputMixIn) else type(first)(joined)
    return pd.concat(parts, ignore_index=True) if isinstance(first, pd.DataFrame) else first


def _widen(part: Tensor, width: int, value: float) -> Tensor:
    # not by torch's pad, whose older versions refuse what has another dimension of 0
    wide = part.new_full((len(part), width, *part.shape[2:]), value)
    wide[:, : part.shape[1]] = part
    return wide


def _exchange(own: dict[str, Any], numbers: list[int]) -> dict[str, Any]:
    """Give each process the parts of all, in the order of the dataset."""
    given: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(given, (own, numbers))
    order = torch.tensor([number for _, part in given for number in part]).argsort()
    count = sum(len(to_list(part["output"])[0]) for part, _ in given)
    if len(order) != count:
        raise ValueError(
            f"mLSTMTime: several processes must know the numbers of the windows that they predict, "
            f"got {len(order)} for {count} windows; pass a dataset, or a plain DataLoader of one."
        )
    return {name: _sort(_join([part[name] for part, _ in given], name), order) for name in own}


def _sort(part: Any, order: Tensor) -> Any:
    if isinstance(part, Tensor):
        return part[order]
    if isinstance(part, dict):
        return {name: _sort(value, order) for name, value in part.items()}
    if isinstance(part, OutputMixIn):
        return type(part)(*(_sort(value, order) for value in part))
    if isinstance(part, list | tuple):
        return type(part)(_sort(value, order) for value in part)
    return part.iloc[order.numpy()].reset_index(drop=True) if part is not None else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning from telling about devices at every forecast."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "pytorch_lightning")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(max(logging.WARNING, logger.level))
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
