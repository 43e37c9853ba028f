"""benchmarks/gpu.py measures and reports; on a CPU, with small sizes."""

from __future__ import annotations

import csv
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield runpy.run_path(str(BENCHMARKS / "gpu.py"))["main"]
    for name in [name for name in sys.modules if name.startswith("_gpu_")]:
        del sys.modules[name]


def read_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "gpu.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "sections",
    ["recurrence", pytest.param("training,forecast,recurrence,layer", marks=pytest.mark.slow)],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # of Lightning, and of constant histories
def test_every_figure_is_measured(run: Callable[..., int], tmp_path: Path, sections: str) -> None:
    assert run(["--device", "cpu", "--quick", "--only", sections, "--out", str(tmp_path)]) == 0
    rows = read_rows(tmp_path)
    assert not [row for row in rows if "Error" in row["figure"]]
    figures = {(row["section"], row["what"]): row["figure"] for row in rows}
    assert float(figures["recurrence", "floor by bandwidth"]) > 0
    assert float(figures["recurrence", "kernel"]) > 0
    if "agreement" in {row["section"] for row in rows}:
        assert float(figures["agreement", "largest error of a forecast"]) == 0
        assert float(figures["layer", "layer, float32, launches"]) > 0
    table = (tmp_path / "gpu.md").read_text(encoding="utf-8").splitlines()
    assert len(table) == len(rows) + 2
    assert torch.backends.cuda.matmul.allow_tf32 is False


def test_sections_stop_when_the_time_is_used_up(run: Callable[..., int], tmp_path: Path) -> None:
    options = ["--device", "cpu", "--quick", "--only", "layer", "--seconds", "0"]
    assert run([*options, "--out", str(tmp_path)]) == 0
    assert [row["figure"] for row in read_rows(tmp_path) if row["section"] == "layer"] == [
        "out of time"
    ]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_missing_gpu_is_reported(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([]) == 1
    assert "pass --device cpu" in capsys.readouterr().err
