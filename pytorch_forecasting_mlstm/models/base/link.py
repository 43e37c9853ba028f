"""How the output of a network maps to the data."""

from enum import Enum

__all__ = ["Link"]


class Link(Enum):
    """How a loss maps the output of the network, of a scale near 1, to the data."""

    AFFINE = "output * scale + center"
    SCALE = "output * scale"  # the mean of counts has no center
    LOG_RATE = "exp(output * scale + center)"  # the loss itself applies exp
    CLASSES = "logits of classes"
