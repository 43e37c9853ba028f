"""A progress bar for the parts of a fit."""

from __future__ import annotations

from typing import Any

from .train import EpochResult


class ProgressBar:
    """One bar per training, with its losses; use it as a context."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._stage: str | None = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def __call__(self, stage: str, result: EpochResult) -> None:
        """Show an epoch of a training."""
        from tqdm.auto import tqdm

        if stage != self._stage or result.epoch == 1:  # a longer training has the same name
            self._close()
            self._bar = tqdm(total=result.max_epochs, desc=stage, unit="epoch", leave=True)
            self._stage = stage
        losses = {"loss": f"{result.training_loss:.4f}"}
        if result.validation_loss is not None:
            losses["validation"] = f"{result.validation_loss:.4f}"
        self._bar.set_postfix(losses, refresh=False)
        self._bar.update()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
