"""Two processes train as one does with the same global batch size."""

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from helpers.ddp_training import train

TESTS = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="gloo's processes are started by fork"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ddp")


def torchrun(script: str, folder: Path) -> None:
    """Run two processes."""
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
    }
    # torchrun takes a port and keeps it: one that is looked for first may be taken by others
    run = [
        "torch.distributed.run",
        "--standalone",
        "--local-addr=127.0.0.1",
        "--nproc-per-node=2",
    ]
    command = [sys.executable, "-m", *run, str(TESTS / "helpers" / script), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> tuple[Any, Any, Any]:
    """What one process has, and what each of two has."""
    torchrun("ddp_training.py", folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone = train(1)
    return alone, *(torch.load(folder / f"rank{r}.pt", weights_only=False) for r in (0, 1))


def test_ddp_processes_have_the_same_weights(outcomes: tuple[Any, Any, Any]) -> None:
    _, first, second = outcomes
    assert first["losses"] == second["losses"]
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name])


def test_ddp_losses_are_those_of_one_process(outcomes: tuple[Any, Any, Any]) -> None:
    """Up to rounding: sums are computed in another order."""
    alone, first, _ = outcomes
    assert len(first["losses"]) == 2 * (alone["windows"] // 8)
    torch.testing.assert_close(first["losses"], alone["losses"], rtol=1e-4, atol=1e-5)
    for name, weight in first["weights"].items():
        torch.testing.assert_close(weight, alone["weights"][name], rtol=0, atol=1e-4)


def test_ddp_validation_is_the_mean_over_all_processes(outcomes: tuple[Any, Any, Any]) -> None:
    """With an odd number of windows, Lightning repeats the first."""
    alone, first, second = outcomes
    assert alone["windows"] % 2
    assert first["validation"] == second["validation"]
    whole = first["whole"]
    errors = (whole["output"][..., 0] - whole["y"][0]).abs().mean(1)
    expected = torch.cat([errors, errors[:1]]).mean().item()
    assert first["validation"] == pytest.approx(expected, rel=1e-4)
    assert alone["validation"] == pytest.approx(errors.mean().item(), rel=1e-3)


def assert_close(one: Any, other: Any) -> None:
    if isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other)
    else:
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_ddp_predictions_are_gathered_in_order(
    outcomes: tuple[Any, Any, Any],
) -> None:
    """Each process returns those of every window once, with inputs, targets and index."""
    _, first, second = outcomes
    whole = first["whole"]
    assert len(whole["output"]) == first["windows"]
    for outcome in (first, second):
        together = outcome["together"]
        assert together.keys() == whole.keys()
        for name in ("output", "x", "y", "index"):
            assert together[name] is not None
            assert_close(together[name], whole[name])


def test_ddp_processes_write_separate_files(outcomes: tuple[Any, Any, Any], folder: Path) -> None:
    _, first, _ = outcomes
    for rank in (0, 1):
        part = torch.load(folder / "written" / f"predictions_rank{rank}.pt", weights_only=False)
        assert_close(part.output.prediction, first["whole"]["output"][rank::2])
    assert len(list((folder / "written").iterdir())) == 2


def test_ddp_process_can_predict_everything_alone(outcomes: tuple[Any, Any, Any]) -> None:
    alone, first, second = outcomes
    assert torch.equal(first["whole"]["output"], second["whole"]["output"])
    torch.testing.assert_close(
        first["whole"]["output"], alone["whole"]["output"], rtol=1e-3, atol=1e-3
    )


def test_more_processes_than_windows(tmp_path: Path) -> None:
    """Validation and tests repeat the window; predictions cannot, and are refused in one line."""
    torchrun("ddp_few_series.py", tmp_path)
    for rank in (0, 1):
        got = torch.load(tmp_path / f"few{rank}.pt")
        assert got["windows"] == 1
        assert got["validated"] == got["tested"] > 0
        for name in ("trainer.predict", "model.predict", "forecast"):
            assert got[name].startswith(
                "ValueError: mLSTMTime: each process must have a window to predict, got 1 "
                "window(s) for 2 processes; "
            )
            assert "\n" not in got[name]
        assert got["each its own"] == "no error"
        assert got["alone"] == 4


def test_processes_that_are_killed_resume_exactly(tmp_path: Path) -> None:
    """Within the first accumulation after an epoch, and within the last epoch."""
    for kills in (1, 2):
        with pytest.raises(AssertionError, match="exitcode: -9"):
            torchrun("ddp_resume.py", tmp_path)
        assert len(list(tmp_path.glob("killed *"))) == 2 * kills
    torchrun("ddp_resume.py", tmp_path)
    for rank in (0, 1):
        got = torch.load(tmp_path / f"resumed{rank}.pt")
        cut, whole = got["cut"], got["whole"]
        for name, weight in whole.pop("weights").items():
            assert torch.equal(cut["weights"][name], weight), name
        del cut["weights"]
        assert cut == whole
        assert (whole["steps"], whole["epoch"]) == (6, 3)
