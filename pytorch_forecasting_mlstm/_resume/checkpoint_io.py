"""Checkpoints that are written atomically."""

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from .._atomic_write import atomic_write, find_os_error

__all__ = ["AtomicCheckpointIO"]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints atomically: a file is the old one or the new one, never part of one.

    Lightning writes to the system's temporary folder and moves the file from there. If that folder
    is on another file system, the move is a copy, and a process that is killed meanwhile leaves a
    truncated file in place of a good one. This plugin writes a temporary file with a random name in
    the same folder, syncs it to the disk and renames it, so several processes, containers and
    machines can write to one folder. The next write removes the temporary files of writers that
    were killed. Paths with a protocol, such as ``s3://``, are left to Lightning.

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
            Checkpoint, as Lightning passes it.
        path : str or Path
            File to write.
        storage_options : optional
            Not used, as in Lightning.

        Raises
        ------
        OSError
            If the file cannot be written. An earlier file of that name is unchanged.
        """
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(target) as (temporary,), temporary.open("wb") as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:
            cause = find_os_error(error)
            if cause is None:
                raise
            raise OSError(
                cause.errno,
                f"AtomicCheckpointIO: cannot write {str(path)!r} "
                f"({cause.strerror or cause}); an earlier file of that name is unchanged. Free "
                "disk space, or choose a writable folder",
            ) from error
