"""``predict`` of pytorch-forecasting in cases where it fails, or returns incomplete results.

These are horizons of different lengths, callbacks in ``trainer_kwargs``, ``trainer_kwargs`` that
are used twice, raw output written to disk, double precision, and several processes.
"""

import inspect
import logging
from collections import namedtuple
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning import Trainer
from lightning.pytorch.trainer.states import TrainerStatus
from lightning.pytorch.utilities import CombinedLoader
from pytorch_forecasting import TimeSeriesDataSet
from pytorch_forecasting.models.base import BaseModel
from pytorch_forecasting.utils import OutputMixIn, to_list
from torch import Tensor, distributed
from torch.utils.data import DataLoader

from ..._arguments import unknown_argument
from ..._upstream import PredictCallback, Prediction
from ..._v2_objects import reject_v2
from ..._validation import check_dict, check_int
from .arguments import PREDICT_HINTS
from .finite_outputs import check_outputs_finite
from .inference import inference_view
from .losses.gradients import explain_nonfinite_output
from .losses.link import primary_metrics
from .losses.output import exit_inference_mode
from .padding import valid_steps
from .seeded_draws import SeededDraws, fixed_seed, seed_loader

__all__ = ["Output", "PredictionMixin"]

_EXAMPLES = {"mode_kwargs": "{'n_samples': 500}", "trainer_kwargs": "{'devices': 1}"}
_MODES = ("prediction", "quantiles", "raw")


class Output(OutputMixIn, namedtuple("output", ["prediction"])):
    """Output of the network. pytorch-forecasting makes a local class, which cannot be pickled."""


class PredictionMixin(BaseModel):
    """A model of pytorch-forecasting whose predictions a :class:`PredictionCollector` collects."""

    loss: Any

    def to_network_output(self, **results: Any) -> Any:
        """Name the fields of the network's output."""
        if results.keys() == {"prediction"}:
            return Output(**results)
        return super().to_network_output(**results)  # of a subclass with more fields

    def setup(self, stage: str) -> None:
        """Check that there is a window to predict for every process."""
        super().setup(stage)
        if stage == "predict" and self.trainer.world_size > 1:
            _check_windows(self.trainer, type(self).__name__)

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        """Return the output of the network, also in ``trainer.predict``.

        pytorch-forecasting computes the loss, too, and adds it to the state of the metric, which
        belongs to the model and all threads that predict with it.
        """
        x, _ = batch
        kwargs: dict[str, Any] = {}
        for callback in self.trainer.callbacks:
            if isinstance(callback, PredictCallback):
                kwargs = callback.predict_kwargs
        with explain_nonfinite_output(type(self).__name__):
            return exit_inference_mode(self.loss, self, x, **kwargs)

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
        """Predict, see :meth:`InputValidationMixin.predict`."""
        caller = type(self).__name__
        _check_mode(mode, caller)
        of_forward = inspect.signature(self.forward).parameters
        for name in kwargs:
            if name not in of_forward:
                names = {*inspect.signature(PredictionMixin.predict).parameters, *of_forward}
                raise unknown_argument(
                    f"{caller}.predict", name, names - {"self", "kwargs"}, PREDICT_HINTS
                )
        if self._trainer is not None and self._trainer.state.status == TrainerStatus.RUNNING:
            raise ValueError(
                f"{caller}: cannot predict or forecast while a Trainer is running, because "
                "predict() starts its own; call it after fit(), or compute the forecasts of a "
                "batch with model.to_prediction(model(x))."
            )
        check_int(f"{caller}.predict", "batch_size", batch_size)
        check_int(f"{caller}.predict", "num_workers", num_workers, minimum=0)
        for name, value in (("mode_kwargs", mode_kwargs), ("trainer_kwargs", trainer_kwargs)):
            if value is not None:
                check_dict(f"{caller}.predict", name, value, _EXAMPLES[name])
        trainer_kwargs = {
            "enable_progress_bar": False,
            "inference_mode": False,
            **(trainer_kwargs or {}),
        }
        if "fast_dev_run" in trainer_kwargs:
            raise ValueError(
                f"{caller}: fast_dev_run must be an argument of predict, got it in trainer_kwargs; "
                "call predict(..., fast_dev_run=True)."
            )
        if isinstance(data, TimeSeriesDataSet):
            data = data.to_dataloader(train=False, batch_size=batch_size, num_workers=num_workers)
        reject_v2(data, caller, "data to predict", "a DataFrame or a TimeSeriesDataSet")
        if not isinstance(getattr(data, "dataset", None), TimeSeriesDataSet):
            raise TypeError(
                f"{caller}: data to predict must be a DataFrame, a TimeSeriesDataSet or a loader "
                f"of one, got {type(data).__name__}; pass one of these."
            )
        if output_dir is not None:
            Path(output_dir).mkdir(parents=True, exist_ok=True)
        collector = PredictionCollector(
            caller,
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
        callbacks = [*to_list(trainer_kwargs.pop("callbacks", None) or []), collector]
        with _silence_device_logs():
            trainer = Trainer(fast_dev_run=fast_dev_run, callbacks=callbacks, **trainer_kwargs)
            view = inference_view(self, own_parameters=True)
            # a dataset that shortens histories at random draws as it loads them
            is_random = data.dataset.randomize_length is not None
            with SeededDraws(0) if is_random else nullcontext():
                trainer.predict(view, seed_loader(data), return_predictions=False)
        return collector.result


def _check_windows(trainer: Any, caller: str) -> None:
    """Raise if there are more processes than windows, where Lightning fails with a bare assertion.

    In validation and tests Lightning repeats windows instead.
    """
    source = trainer.predict_loop._data_source
    loaders = CombinedLoader(source.dataloader(), "sequential").flattened
    for loader in loaders:
        # this method returns whether Lightning splits a loader between the processes
        if isinstance(loader, DataLoader) and trainer._data_connector._requires_distributed_sampler(
            loader
        ):
            windows, processes = len(loader.sampler), trainer.world_size  # type: ignore[arg-type]
            if 0 < windows < processes:
                raise ValueError(
                    f"{caller}: each process must have a window to predict, got {windows} "
                    f"window(s) for {processes} processes; predict with at most "
                    f"Trainer(devices={windows}), or in predict and forecast with "
                    f"trainer_kwargs={{'devices': 1}}."
                )


def _check_mode(mode: Any, caller: str) -> None:
    """Raise if there is no such mode. The field of a raw mode is checked later."""
    is_raw_field = isinstance(mode, tuple | list) and len(mode) == 2 and mode[0] == "raw"
    if not is_raw_field and mode not in _MODES:
        raise _unknown_mode(mode, ["prediction"], caller)


class PredictionCollector(PredictCallback):
    """Collects predictions batch by batch, or writes them, and concatenates them in the end.

    Unlike with its base class in pytorch-forecasting, batches may have horizons of different
    lengths, several processes exchange their predictions, and what is written at the end of an
    epoch is what would have been returned.

    Parameters
    ----------
    caller : str
        Name to begin error messages with.
    **kwargs
        Arguments of the base class.
    """

    def __init__(self, caller: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._caller = caller

    def _reset_data(self, result: bool = True) -> None:
        self._batches: list[dict[str, Any]] = []
        self._window_numbers: list[int] = []
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
        """Collect a batch, or write it."""
        x, y = batch
        dataset = trainer.predict_dataloaders.dataset
        with fixed_seed(primary_metrics(pl_module.loss), batch_idx):
            results = {"output": self._select_output(pl_module, outputs, x, dataset)}
        if self.return_x:
            results["x"] = x
        if self.return_index:
            results["index"] = dataset.x_to_index(x)
        if self.return_decoder_lengths:
            results["decoder_lengths"] = x["decoder_lengths"]
        if self.return_y:
            results["y"] = y
        results = _to_cpu(results)
        if self.output_dir is not None and self.interval.on_batch:
            torch.save(Prediction(**results), self._path(trainer, f"predictions_{batch_idx}"))
        if self.output_dir is None or self.interval.on_epoch:
            self._batches.append(results)
            if trainer.world_size > 1:
                self._window_numbers.extend(trainer.predict_loop.current_batch_indices)

    def _select_output(self, model: Any, out: Any, x: dict[str, Any], dataset: Any) -> Any:
        """Return the output for the mode: raw, point forecasts or quantiles."""
        check_outputs_finite(model, dataset, x, out["prediction"])
        if isinstance(self.mode, tuple | list):
            if self.mode[1] not in out.keys():  # a named tuple: its keys are its fields
                raise _unknown_mode(self.mode, out.keys(), type(model).__name__)
            return out[self.mode[1]]
        if self.mode == "raw":
            return out
        convert = model.to_prediction if self.mode == "prediction" else model.to_quantiles
        values = convert(out, **self.mode_kwargs)
        check_outputs_finite(model, dataset, x, values)
        lengths = x["decoder_lengths"]
        masked = [_mask_padding(target_values, lengths) for target_values in to_list(values)]
        return masked if isinstance(values, list | tuple) else masked[0]

    def on_predict_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Concatenate all batches, and write them if there is a directory for it."""
        if not self._batches:
            return
        results = {
            name: _concatenate([batch[name] for batch in self._batches], name)
            for name in self._batches[0]
        }
        if self.output_dir is None and trainer.world_size > 1:
            results = _all_gather(results, self._window_numbers, self._caller)
        result = Prediction(**results) if len(results) > 1 else results["output"]
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
        """The predictions, or None if they were written."""
        if self._result is None and self.output_dir is None:
            raise ValueError(
                f"{self._caller}: the process that calls predict must receive predictions, got "
                "none here; in trainer_kwargs pass devices=1, or strategy='ddp' instead of one "
                "that spawns processes, and do not limit the batches to 0."
            )
        return self._result


def _unknown_mode(mode: Any, fields: Iterable[str], caller: str) -> ValueError:
    modes = [*_MODES, *(("raw", field) for field in fields)]
    return ValueError(f"{caller}: mode must be one of {modes}, got {mode!r}.")


def _mask_padding(values: Tensor, lengths: Tensor) -> Tensor:
    """Set values (B, T) or (B, T, Q) after the end of each horizon to NaN if they are real."""
    if not values.is_floating_point():
        return values
    padding = ~valid_steps(lengths, values.shape[1])
    return values.masked_fill(padding.reshape(*padding.shape, *[1] * (values.ndim - 2)), torch.nan)


def _to_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {name: _to_cpu(item) for name, item in value.items()}
    if isinstance(value, OutputMixIn):
        return type(value)(*map(_to_cpu, value))
    if isinstance(value, list | tuple):
        return type(value)(map(_to_cpu, value))
    return value


def _concatenate(batches: list[Any], name: str) -> Any:
    """Concatenate batches of tensors, or of lists, tuples and dicts of these.

    Shorter horizons are padded: output with NaN if it is real, everything else with zeros, as
    pytorch-forecasting pads within a batch.
    """
    first = batches[0]
    if isinstance(first, Tensor):
        if first.ndim > 1:
            steps = max(batch.shape[1] for batch in batches)
            padding = torch.nan if name == "output" and first.is_floating_point() else 0
            batches = [_pad_steps(batch, steps, padding) for batch in batches]
        return torch.cat(batches)
    if isinstance(first, dict):
        return {key: _concatenate([batch[key] for batch in batches], name) for key in first}
    if isinstance(first, list | tuple):
        items = [_concatenate(list(item), name) for item in zip(*batches, strict=True)]
        return type(first)(*items) if isinstance(first, OutputMixIn) else type(first)(items)
    return pd.concat(batches, ignore_index=True) if isinstance(first, pd.DataFrame) else first


def _pad_steps(batch: Tensor, steps: int, padding: float) -> Tensor:
    # older versions of torch's pad reject tensors that have another dimension of size 0
    padded = batch.new_full((len(batch), steps, *batch.shape[2:]), padding)
    padded[:, : batch.shape[1]] = batch
    return padded


def _all_gather(results: dict[str, Any], window_numbers: list[int], caller: str) -> dict[str, Any]:
    """Return the results of all processes to each, in the order of the dataset."""
    gathered: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, (results, window_numbers))
    order = torch.tensor([number for _, numbers in gathered for number in numbers]).argsort()
    count = sum(len(to_list(rank_results["output"])[0]) for rank_results, _ in gathered)
    if len(order) != count:
        raise ValueError(
            f"{caller}: several processes must know the numbers of the windows that they predict, "
            f"got {len(order)} for {count} windows; pass a dataset, or a plain DataLoader of one."
        )
    return {
        name: _sort(_concatenate([rank_results[name] for rank_results, _ in gathered], name), order)
        for name in results
    }


def _sort(value: Any, order: Tensor) -> Any:
    if isinstance(value, Tensor):
        return value[order]
    if isinstance(value, dict):
        return {name: _sort(item, order) for name, item in value.items()}
    if isinstance(value, OutputMixIn):
        return type(value)(*(_sort(item, order) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(_sort(item, order) for item in value)
    return value.iloc[order.numpy()].reset_index(drop=True) if value is not None else None


#: Whether this thread or task predicts.
_is_predicting = ContextVar("_is_predicting", default=False)


def _keep_record(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or not _is_predicting.get()


# A filter of a logger does not see the records of its children, so each of them needs it.
for _name in ("lightning.pytorch", "pytorch_lightning"):
    for _module in ("", ".utilities.rank_zero"):
        logging.getLogger(_name + _module).addFilter(_keep_record)


@contextmanager
def _silence_device_logs() -> Iterator[None]:
    """Keep Lightning from logging the available devices at every call, in this thread alone."""
    token = _is_predicting.set(True)
    try:
        yield
    finally:
        _is_predicting.reset(token)
