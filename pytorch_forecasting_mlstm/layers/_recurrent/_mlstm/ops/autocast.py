"""The recurrence runs without autocast: its states are float32 or wider."""

from contextlib import AbstractContextManager, nullcontext

import torch

__all__ = ["autocast_disabled", "has_autocast"]

# Evaluated once, since older versions of torch.compile cannot trace the call.
_WITH_AUTOCAST = frozenset(
    kind
    for kind in ("cpu", "cuda", "xpu", "mps", "hpu", "xla")
    if torch.amp.is_autocast_available(kind)
)


def has_autocast(device: str) -> bool:
    """Whether this device type supports autocast."""
    return device in _WITH_AUTOCAST


def autocast_disabled(device: torch.device) -> AbstractContextManager[object]:
    """Return a context that disables autocast on this device."""
    # If there is nothing to disable, an exported graph needs no region for it.
    if has_autocast(device.type) and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
