"""Checkpoints that are written whole or not at all."""

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from .._atomic_write import atomic_write

__all__ = ["AtomicCheckpointIO"]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints so that a file is the old one or the new one, never a part of one.

    Lightning writes to the system's folder for temporary files and moves the file from there, which
    is a copy where that is another file system: a process killed meanwhile leaves a truncated file
    in place of a good one. This plugin writes a temporary file of a random name in the same folder,
    syncs it to the disk and renames it, so that several processes, containers and machines can
    write to one folder. The next write clears temporary files of writers that were killed. Paths
    with a protocol, such as ``s3://``, are left to Lightning.

    Examples
    --------
    >>> from lightning import Trainer
    >>> trainer = Trainer(accelerator="cpu", logger=False, plugins=[AtomicCheckpointIO()])
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Parameters
        ----------
        checkpoint : dict
            What to write.
        path : str or Path
            File.
        storage_options : optional
            Not used, as in Lightning.

        Raises
        ------
        OSError
            The file cannot be written; an earlier file of that name is unchanged.
        """
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(target) as (part,), part.open("wb") as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:
            reason = _reason(error)
            if reason is None:
                raise
            raise OSError(
                reason.errno,
                f"AtomicCheckpointIO: cannot write {str(path)!r} "
                f"({reason.strerror or reason}); an earlier file of that name is unchanged. Free "
                f"space, or name a folder that can be written to",
            ) from error


def _reason(error: BaseException | None) -> OSError | None:
    """Find the error of the file system, which torch's own may hide."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error
