"""Run tests over both ways in which the kernels divide the work."""

import pytest

from helpers.triton_kernels import TritonPlan


@pytest.fixture(params=TritonPlan, ids=lambda plan: plan.name)
def both_plans(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one program compute a sequence, or a chunk of one."""
    request.param.apply(monkeypatch)
