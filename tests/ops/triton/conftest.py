"""Run tests over both ways in which the kernels divide the work."""

import pytest

from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.triton import options


@pytest.fixture(params=[1, 1 << 30], ids=["sequences", "chunks"])
def both_plans(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one program compute a sequence, or a chunk of one."""
    monkeypatch.setattr(options, "_MIN_SEQUENCES", request.param)
    monkeypatch.setattr(options, "_MAX_SEQUENCE_SIDE", options._MAX_SIDE)
