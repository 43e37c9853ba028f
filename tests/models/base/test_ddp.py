"""Two processes train like one process with the same global batch size."""

import sys
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from helpers.ddp_training import train
from helpers.torchrun import torchrun

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="torchrun with gloo needs POSIX"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ddp")


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> tuple[Any, Any, Any]:
    """Return the results of a single process, and of the two processes."""
    torchrun("ddp_training.py", folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        single = train(1)
    return single, *(torch.load(folder / f"rank{r}.pt", weights_only=False) for r in (0, 1))


def test_ddp_processes_have_the_same_weights(outcomes: tuple[Any, Any, Any]) -> None:
    _, first, second = outcomes
    assert first["losses"] == second["losses"]
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name])


def test_ddp_losses_match_one_process(outcomes: tuple[Any, Any, Any]) -> None:
    """Up to rounding, since sums are computed in another order."""
    single, first, _ = outcomes
    assert len(first["losses"]) == 2 * (single["windows"] // 8)
    torch.testing.assert_close(first["losses"], single["losses"], rtol=1e-4, atol=1e-5)
    for name, weight in first["weights"].items():
        torch.testing.assert_close(weight, single["weights"][name], rtol=0, atol=1e-4)


def test_ddp_validation_is_the_mean_over_all_processes(outcomes: tuple[Any, Any, Any]) -> None:
    """If the number of windows is odd, Lightning repeats the first."""
    single, first, second = outcomes
    assert single["windows"] % 2
    assert first["val_loss"] == second["val_loss"]
    predictions = first["on one device"]
    errors = (predictions["output"][..., 0] - predictions["y"][0]).abs().mean(1)
    expected = torch.cat([errors, errors[:1]]).mean().item()
    assert first["val_loss"] == pytest.approx(expected, rel=1e-4)
    assert single["val_loss"] == pytest.approx(errors.mean().item(), rel=1e-3)


def assert_close(actual: Any, expected: Any) -> None:
    if isinstance(actual, pd.DataFrame):
        pd.testing.assert_frame_equal(actual, expected)
    else:
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_ddp_predictions_are_gathered_in_order(
    outcomes: tuple[Any, Any, Any],
) -> None:
    """Every process returns the predictions of all windows, with inputs, targets and index."""
    _, first, second = outcomes
    expected = first["on one device"]
    assert len(expected["output"]) == first["windows"]
    for outcome in (first, second):
        gathered = outcome["gathered"]
        assert gathered.keys() == expected.keys()
        for name in ("output", "x", "y", "index"):
            assert gathered[name] is not None
            assert_close(gathered[name], expected[name])


def test_ddp_processes_write_separate_files(outcomes: tuple[Any, Any, Any], folder: Path) -> None:
    _, first, _ = outcomes
    for rank in (0, 1):
        path = folder / "predictions" / f"predictions_rank{rank}.pt"
        predictions = torch.load(path, weights_only=False)
        expected = first["on one device"]["output"][rank::2]
        assert_close(predictions.output.prediction, expected)
    assert len(list((folder / "predictions").iterdir())) == 2


def test_ddp_process_can_predict_on_one_device(outcomes: tuple[Any, Any, Any]) -> None:
    single, first, second = outcomes
    actual, of_second, expected = (x["on one device"]["output"] for x in (first, second, single))
    assert torch.equal(actual, of_second)
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3)


def test_more_processes_than_windows_repeat_a_window_or_raise(tmp_path: Path) -> None:
    """Validation and tests repeat the window; predictions cannot, and raise a one-line error."""
    torchrun("ddp_few_series.py", tmp_path)
    for rank in (0, 1):
        results = torch.load(tmp_path / f"few{rank}.pt")
        assert results["windows"] == 1
        assert results["val_loss"] == results["test_loss"] > 0
        for name in ("trainer.predict", "model.predict", "forecast"):
            assert results[name].startswith(
                "ValueError: mLSTMTime: each process must have a window to predict, got 1 "
                "window(s) for 2 processes; "
            )
            assert "\n" not in results[name]
        assert results["without distributed sampler"] == "no error"
        assert results["rows on one device"] == 4


def test_killed_processes_resume_exactly(tmp_path: Path) -> None:
    """They are killed in the first accumulation after an epoch, and in the last epoch."""
    for kills in (1, 2):
        with pytest.raises(AssertionError, match="exitcode: -9"):
            torchrun("ddp_resume.py", tmp_path)
        assert len(list(tmp_path.glob("killed *"))) == 2 * kills
    torchrun("ddp_resume.py", tmp_path)
    for rank in (0, 1):
        results = torch.load(tmp_path / f"resumed{rank}.pt")
        resumed, expected = results["resumed"], results["expected"]
        for name, weight in expected.pop("weights").items():
            assert torch.equal(resumed["weights"][name], weight), name
        del resumed["weights"]
        assert resumed == expected
        assert (expected["steps"], expected["epoch"]) == (6, 3)
