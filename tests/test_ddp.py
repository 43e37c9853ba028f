"""Two processes train as one does at the same global batch."""

import os
import socket
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from ddp_training import train

TESTS = Path(__file__).parent
pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="gloo's processes are started by fork"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Any]:
    """What one process has, and what each of two has."""
    folder = tmp_path_factory.mktemp("ddp")
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
    }
    command = [sys.executable, str(TESTS / "ddp_training.py"), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone = train(1)
    return alone, torch.load(folder / "rank0.pt"), torch.load(folder / "rank1.pt")


def test_processes_stay_together(outcomes: tuple[Any, Any, Any]) -> None:
    _, first, second = outcomes
    assert first["losses"] == second["losses"]
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name])


def test_loss_curve_is_that_of_one_process(outcomes: tuple[Any, Any, Any]) -> None:
    """Within rounding: sums are taken in another order."""
    alone, first, _ = outcomes
    assert len(first["losses"]) == 2 * (alone["windows"] // 8)
    torch.testing.assert_close(first["losses"], alone["losses"], rtol=1e-4, atol=1e-5)
    for name, weight in first["weights"].items():
        torch.testing.assert_close(weight, alone["weights"][name], rtol=0, atol=1e-4)
    # an odd number of windows: in validation one of them counts for both
    assert alone["windows"] % 2
    assert first["validation"] == pytest.approx(alone["validation"], rel=0.1)


def test_predictions_are_in_order_once_they_are_interleaved(
    outcomes: tuple[Any, Any, Any],
) -> None:
    """Process r predicts every second window from r on, none of them twice."""
    _, first, second = outcomes
    assert len(first["part"]) + len(second["part"]) == len(first["whole"]) == first["windows"]
    for rank, outcome in enumerate((first, second)):
        torch.testing.assert_close(outcome["part"], first["whole"][rank::2], rtol=1e-5, atol=1e-5)


def test_one_process_of_several_can_predict_everything(outcomes: tuple[Any, Any, Any]) -> None:
    alone, first, second = outcomes
    assert torch.equal(first["whole"], second["whole"])
    torch.testing.assert_close(first["whole"], alone["whole"], rtol=1e-3, atol=1e-3)
