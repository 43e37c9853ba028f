"""Models as graphs that run without this package: torch.export and ONNX."""

import inspect
from pathlib import Path
from typing import Any

import torch
from pytorch_forecasting.data import NaNLabelEncoder
from pytorch_forecasting.utils import to_list
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ..._arguments import suggest_arguments, unknown_argument
from .arguments import EXPORT_HINTS
from .inference import inference_view
from .losses.link import is_joint_over_horizon, primary_metrics, target_normalizers

__all__ = ["ExportMixin", "ForecastGraph", "example_batch"]

_EXAMPLE_SIZE = 2  # of a batch; a tracer takes a batch of one for a constant
_LARGEST_BATCH = 2**31 - 1
_HINT = "export with to_exported_program() or to_onnx(file_path)"


class ForecastGraph(nn.Module):
    """What is exported of a model: from the tensors of a batch to its forecast.

    Parameters
    ----------
    model : ForecastingModel
        The model.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = inference_view(model)

    def forward(self, x: dict[str, Any]) -> Any:
        """Return the ``prediction`` of the model: a tensor, or one for each target."""
        prediction = self.model(x)["prediction"]
        return tuple(prediction) if isinstance(prediction, list) else prediction


def example_batch(model: Any, size: int = _EXAMPLE_SIZE) -> dict[str, Any]:
    """Return a batch of zeros, with what a model reads of it, and the largest lengths.

    Parameters
    ----------
    model : ForecastingModel
        The model.
    size : int, default 2
        Samples.
    """
    hparams, dtype, device = model.hparams, model.dtype, model.device
    history, horizon = hparams.max_encoder_length, hparams.max_prediction_length
    several = not isinstance(hparams.target, str | None)
    targets, scales = [], []
    for normalizer in target_normalizers(model.output_transformer):
        is_class = isinstance(normalizer, NaNLabelEncoder)
        kind = torch.int64 if is_class else dtype
        targets.append(torch.zeros(size, history, dtype=kind, device=device))
        scales.append(torch.tensor([[0.0, 1.0]], dtype=dtype, device=device).repeat(size, 1))
    batch: dict[str, Any] = {
        "encoder_target": targets if several else targets[0],
        "target_scale": scales if several else scales[0],
        "groups": torch.zeros(size, model.scale_table.groups, dtype=torch.int64, device=device),
    }
    for part, steps in (("encoder", history), ("decoder", horizon)):
        shape, reals = (size, steps), len(hparams.x_reals)
        batch[f"{part}_lengths"] = torch.full((size,), steps, dtype=torch.int64, device=device)
        batch[f"{part}_cont"] = torch.zeros(*shape, reals, dtype=dtype, device=device)
        batch[f"{part}_cat"] = torch.zeros(
            *shape, len(hparams.x_categoricals), dtype=torch.int64, device=device
        )
    return batch


class ExportMixin:
    """Methods of a model that return it as a graph."""

    @suggest_arguments(EXPORT_HINTS)
    @torch.no_grad()
    def to_exported_program(self, input_sample: dict[str, Any] | None = None) -> Any:
        """Return the model as a graph of torch, for batches of any size.

        The graph maps a dictionary of tensors, as in a batch of the dataset, to the ``prediction``
        of :meth:`forward`, in evaluation mode. It reads ``encoder_cont``, ``encoder_cat``,
        ``encoder_target``, ``encoder_lengths``, ``decoder_cont``, ``decoder_cat``,
        ``decoder_lengths``, ``target_scale`` and ``groups``. History and horizon have the lengths
        of the sample; shorter ones are padded at their end.

        Parameters
        ----------
        input_sample : dict, optional
            Inputs of at least two samples. Default: zeros of the largest lengths.

        Returns
        -------
        torch.export.ExportedProgram
            The graph. ``torch.export.save`` writes it, and
            ``torch._inductor.aoti_compile_and_package`` compiles it for programs without Python.

        Raises
        ------
        TypeError, ValueError
            If the sample is not the inputs of a batch or has one sample, or the loss needs
            gradients to forecast.

        Examples
        --------
        >>> from pytorch_forecasting import TimeSeriesDataSet
        >>> from pytorch_forecasting.data.examples import generate_ar_data
        >>> from pytorch_forecasting_mlstm import mLSTMTime
        >>> dataset = TimeSeriesDataSet(
        ...     generate_ar_data(timesteps=60, n_series=2, seed=1), time_idx="time_idx",
        ...     target="value", group_ids=["series"], time_varying_unknown_reals=["value"],
        ...     max_encoder_length=16, max_prediction_length=4,
        ... )
        >>> program = mLSTMTime.from_dataset(dataset, hidden_size=8).to_exported_program()
        >>> x, _ = next(iter(dataset.to_dataloader(batch_size=7)))
        >>> inputs = {name: x[name] for name in program.example_inputs[0][0]}
        >>> program.module()(inputs).shape
        torch.Size([7, 4, 1])
        """
        caller = f"{type(self).__name__}.to_exported_program"
        sample = _select_inputs(self, input_sample, caller)
        # torch 2.7 needs a largest size, and would have dynamo trace, which it does since 2.8 only
        # if it is asked for.
        batch = torch.export.Dim("batch", min=1, max=_LARGEST_BATCH)
        sizes = tree_map(lambda _: {0: batch}, sample)
        return torch.export.export(
            ForecastGraph(self), (sample,), dynamic_shapes=(sizes,), strict=False
        )

    @torch.no_grad()
    def to_onnx(
        self,
        file_path: str | Path | None = None,
        input_sample: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Write the model as an ONNX file, for batches of any size.

        Its inputs have the names of the tensors of a batch, see :meth:`to_exported_program`; those
        of several targets are numbered, as in ``encoder_target_0``. Its output is ``prediction``,
        or ``prediction_0`` and so on. This needs ``onnx`` and ``onnxscript``.

        Parameters
        ----------
        file_path : str or Path, optional
            Where to write it. Default: it is only returned.
        input_sample : dict, optional
            As in :meth:`to_exported_program`.
        **kwargs
            Arguments of :func:`torch.onnx.export`, such as ``opset_version``.

        Returns
        -------
        torch.onnx.ONNXProgram
            The program.

        Raises
        ------
        ImportError
            If onnx or onnxscript is not installed.
        TypeError, ValueError
            As :meth:`to_exported_program`, and if ``dynamo`` is False: the exporter of TorchScript
            is not supported.
        """
        caller = f"{type(self).__name__}.to_onnx"
        names = {*_onnx_arguments(), "file_path", "input_sample"}
        for name in kwargs:
            if name not in names:
                raise unknown_argument(caller, name, names, EXPORT_HINTS)
        if not kwargs.pop("dynamo", True):
            raise ValueError(
                f"{caller}: dynamo must be True, got False: torch no longer develops its exporter "
                f"of TorchScript; leave it out."
            )
        program = self.to_exported_program(input_sample)
        named = {"input_names": _names(program.example_inputs[0][0])}
        target = self.hparams.target  # type: ignore[attr-defined]
        outputs = len(to_list(target))
        named["output_names"] = (
            [f"prediction_{number}" for number in range(outputs)] if outputs > 1 else ["prediction"]
        )
        return torch.onnx.export(
            program, f=file_path, **{"dynamo": True, "verbose": False, **named, **kwargs}
        )

    def to_torchscript(self, *args: Any, **kwargs: Any) -> Any:
        """Raise: torch has deprecated TorchScript.

        Parameters
        ----------
        *args, **kwargs
            Arguments of Lightning's method.

        Raises
        ------
        NotImplementedError
            Always.
        """
        raise NotImplementedError(
            f"{type(self).__name__}: a model cannot be exported as TorchScript, which torch has "
            f"deprecated; {_HINT}."
        )


def _onnx_arguments() -> set[str]:
    """Return the arguments of torch's exporter that are left to the user."""
    given = {"model", "args", "f", "kwargs", "dynamic_shapes", "dynamic_axes"}
    return set(inspect.signature(torch.onnx.export).parameters) - given


def _select_inputs(model: Any, sample: Any, caller: str) -> dict[str, Any]:
    """Return what the model reads of a batch."""
    joint = next(filter(is_joint_over_horizon, primary_metrics(model.loss)), None)
    if joint is not None:
        raise ValueError(
            f"{caller}: {type(joint).__name__} needs gradients to forecast, which a graph does not "
            f"compute; train with a QuantileLoss."
        )
    example = example_batch(model)
    if sample is None:
        return example
    if not isinstance(sample, dict) or not example.keys() <= sample.keys():
        found = sorted(sample) if isinstance(sample, dict) else type(sample).__name__
        raise TypeError(
            f"{caller}: input_sample must be the x of a batch, with {sorted(example)}, got "
            f"{found}; leave it out, or take it from dataset.to_dataloader()."
        )
    sample = {name: sample[name] for name in example}
    if len(sample["encoder_lengths"]) < 2:
        raise ValueError(
            f"{caller}: input_sample must have at least 2 samples, so that the batch stays "
            f"variable, got {len(sample['encoder_lengths'])}; leave it out."
        )
    return sample


def _names(sample: dict[str, Tensor | list[Tensor]]) -> list[str]:
    """Name the tensors of a batch in their order."""
    names = []
    for name, part in sample.items():
        if isinstance(part, Tensor):
            names.append(name)
        else:
            names += [f"{name}_{number}" for number in range(len(part))]
    return names
