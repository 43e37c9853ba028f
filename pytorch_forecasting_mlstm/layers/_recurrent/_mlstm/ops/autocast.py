"""Autocast is kept out of the recurrence, whose states are float32 at least."""

from contextlib import AbstractContextManager, nullcontext

import torch

__all__ = ["autocast_disabled", "has_autocast"]

# asked once: older torch.compile cannot trace the question
_WITH_AUTOCAST = frozenset(
    kind
    for kind in ("cpu", "cuda", "xpu", "mps", "hpu", "xla")
    if torch.amp.is_autocast_available(kind)
)


def has_autocast(device: str) -> bool:
    """Whether there is autocast for a type of device."""
    return device in _WITH_AUTOCAST


def autocast_disabled(device: torch.device) -> AbstractContextManager[object]:
    """Return a context without autocast."""
    if has_autocast(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
