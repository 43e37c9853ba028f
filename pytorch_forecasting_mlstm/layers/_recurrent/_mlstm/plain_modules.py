"""Modules whose parameters can be read instead of calling them."""

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

__all__ = ["is_plain_parameter", "runs_only_forward"]


def runs_only_forward(module: nn.Module) -> bool:
    """Whether a call runs the ``forward`` of the class and nothing else, such as a hook."""
    return not (
        module._forward_pre_hooks
        or module._forward_hooks
        or module._backward_pre_hooks
        or module._backward_hooks
        or "forward" in module.__dict__
        or torch_module._global_forward_pre_hooks
        or torch_module._global_forward_hooks
        or torch_module._global_backward_pre_hooks
        or torch_module._global_backward_hooks
    )


def is_plain_parameter(parameter: object, like: Tensor, shape: tuple[int, ...]) -> bool:
    """Whether this is a dense parameter of a shape, with the dtype and the device of a tensor."""
    return (
        type(parameter) is nn.Parameter
        and parameter.shape == shape
        and parameter.dtype == like.dtype
        and parameter.device == like.device
        and parameter.layout == torch.strided
    )
