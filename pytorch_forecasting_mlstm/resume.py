"""Resume a killed training run as if it had never stopped.

Lightning saves weights, optimizers, schedulers and counters. It leaves the order of the remaining
windows to the data loader and dropout to torch's random generators, and some of its counters are
wrong after a resume. The classes here derive both from a seed and the index of the step. They save
checkpoints of completed steps only, and write each file atomically::

    loader = resumable(training.to_dataloader(train=True, batch_size=64), seed=1)
    saved = ModelCheckpoint(every_n_train_steps=500, save_last=True)
    trainer = Trainer(callbacks=[SeededSteps(seed=1), saved], plugins=[AtomicCheckpointIO()])
    trainer.fit(model, loader, ckpt_path="last")
"""

from ._resume.checkpoint_io import AtomicCheckpointIO
from ._resume.loader import ResumableDataLoader, SeededSampler, resumable
from ._resume.seeded_steps import SeededSteps

__all__ = ["AtomicCheckpointIO", "ResumableDataLoader", "SeededSampler", "SeededSteps", "resumable"]
