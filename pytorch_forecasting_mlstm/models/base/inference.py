"""Inference that leaves no trace in the model: it runs a view, which shares the weights."""

from typing import Any, TypeVar, cast

import torch
from lightning.fabric.utilities import move_data_to_device
from pytorch_forecasting.utils import to_list
from torch import Tensor, nn

__all__ = ["inference_view", "predict_outputs"]

Module = TypeVar("Module", bound=nn.Module)


def inference_view(module: Module, *, own_parameters: bool = False) -> Module:
    """Return a module in evaluation mode that shares the tensors of another one, and nothing else.

    Dropout reads the mode from an attribute of its module, and a Trainer attaches itself to the
    module that it runs. Calls from several threads would therefore change each other's results, and
    an interrupted call would leave the wrong mode behind. A view has attributes of its own. It
    takes some microseconds per submodule, and no memory for weights.

    Parameters
    ----------
    module : Module
        The module, which is left as it is.
    own_parameters : bool, default False
        Whether the view has parameters of its own, which share the memory of the weights. A Trainer
        deletes the gradients of parameters, and moves them to its device and back.

    Examples
    --------
    >>> layer = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    >>> view = inference_view(layer)
    >>> view.training, layer.training, view[0].weight is layer[0].weight
    (False, True, True)
    """
    views: dict[int, nn.Module] = {}
    parameters = {
        id(p): nn.Parameter(p.detach(), requires_grad=p.requires_grad) if own_parameters else p
        for p in module.parameters()
    }
    for part in module.modules():
        view = part.__class__.__new__(part.__class__)
        view.__dict__.update(part.__dict__)
        view.__dict__["training"] = False
        for registry in ("_parameters", "_buffers", "_modules"):
            view.__dict__[registry] = dict(part.__dict__[registry])
        view._parameters.update(
            {name: parameters[id(p)] for name, p in view._parameters.items() if p is not None}
        )
        if "_compiled_call_impl" in view.__dict__:  # calls the module that was compiled
            view.__dict__["_compiled_call_impl"] = None
        views[id(part)] = view
    for view in views.values():
        for name, child in view._modules.items():
            if child is not None:
                view._modules[name] = views[id(child)]
    return cast(Module, views[id(module)])


@torch.no_grad()
def predict_outputs(model: Any, dataset: Any, batch_size: int) -> list[Tensor]:
    """Compute the output of the network for all windows of a dataset, without a Trainer.

    There is no data loader either, which would draw a random number.

    Parameters
    ----------
    model : ForecastingModel
        The model, which checks every batch. It runs on the device that it is on.
    dataset : BatchedTimeSeriesDataSet
        Dataset whose windows have horizons of equal length.
    batch_size : int
        Number of windows at a time.

    Returns
    -------
    list of Tensor
        What the loss of each target expects, (windows, steps, output_size), on the CPU.
    """
    view = inference_view(model)
    batches = []
    for start in range(0, len(dataset), batch_size):
        positions = range(start, min(start + batch_size, len(dataset)))
        x, _ = dataset.__getitems__(positions).collate()
        view.check_inputs(x)
        output = view(move_data_to_device(x, model.device))
        batches.append([part.cpu() for part in to_list(output["prediction"])])
    return [torch.cat(parts) for parts in zip(*batches, strict=True)]
