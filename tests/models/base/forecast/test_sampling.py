"""What is drawn from the forecast of a step."""

import torch
from pytorch_forecasting import GroupNormalizer
from pytorch_forecasting.metrics import PoissonLoss

from pytorch_forecasting_mlstm.models.base.forecast.sampling import draw


def test_counts_of_huge_rates_are_near_them() -> None:
    """Torch draws them in 64 bits, where they would overflow to negative numbers."""
    rates = torch.tensor([[[5.0]], [[1e15]], [[1e18]], [[1e30]]], dtype=torch.float64)
    levels, generator = torch.full((1, 4, 1), 0.5), torch.Generator().manual_seed(0)
    counts = draw(PoissonLoss(), rates.log(), levels, GroupNormalizer(), generator).flatten()
    deviations = (counts - rates.flatten()).abs() / rates.flatten().sqrt()
    assert (counts > 0).all() and (deviations[:2] < 5).all()
    torch.testing.assert_close(counts[2:], rates.flatten()[2:], rtol=1e-6, atol=0)
