"""benchmarks/gpu.py measures and reports; on a CPU, with small sizes."""

from __future__ import annotations

import csv
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from helpers.triton_kernels import needs_triton
from pytorch_forecasting_mlstm import BackendInfo
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.triton import options

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
    # torch has no LSTM in bfloat16 for some processors.
    errors = [row for row in rows if "Error" in row["figure"]]
    assert not [row for row in errors if row["what"] != "nn.LSTM, bfloat16"]
    figures = {(row["section"], row["what"]): row["figure"] for row in rows}
    assert float(figures["recurrence", "floor by bandwidth"]) > 0
    kernel = figures["recurrence", "kernel"]  # there is one where a library is, or a compiler
    assert kernel.startswith("no kernel: ") or float(kernel) > 0
    if "agreement" in {row["section"] for row in rows}:
        assert float(figures["agreement", "largest error of a forecast"]) == 0
        assert float(figures["layer", "layer, float32, launches"]) > 0
        assert float(figures["training step", "32-true, launches"]) > 100
        busy, step = (figures["training step", f"32-true{x}"] for x in (", device busy", ""))
        assert 0 < float(busy) < 10 * float(step)
    table = (tmp_path / "gpu.md").read_text(encoding="utf-8").splitlines()
    assert len(table) == len(rows) + 2
    assert torch.backends.cuda.matmul.allow_tf32 is False


def test_sections_stop_when_the_time_is_used_up(run: Callable[..., int], tmp_path: Path) -> None:
    options = ["--device", "cpu", "--quick", "--only", "layer,forecast", "--seconds", "0"]
    assert run([*options, "--out", str(tmp_path)]) == 0
    rows = [row for row in read_rows(tmp_path) if row["section"] != "machine"]
    assert [(row["section"], row["figure"]) for row in rows] == [
        ("layer", "out of time"),
        ("forecast", "out of time"),
    ]


def test_times_of_pytorch_are_not_reported_as_those_of_a_kernel(
    run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = BackendInfo("pytorch", "the self-test failed")
    monkeypatch.setattr(sys.modules["_gpu_bench"], "backend", lambda: info)
    options = ["--device", "cpu", "--quick", "--only", "recurrence"]
    assert run([*options, "--out", str(tmp_path)]) == 0
    figures = {row["what"]: row["figure"] for row in read_rows(tmp_path)}
    assert float(figures.pop("PyTorch")) > 0
    kernels = {figure for what, figure in figures.items() if what.startswith("kernel")}
    assert kernels == {"no kernel: the self-test failed"}


@pytest.mark.skipif(sys.platform == "win32", reason="the script needs bash")
@pytest.mark.parametrize(("status", "text"), [(0, ""), (3, "status 3"), (124, "timed out")])
def test_script_reports_what_fails(tmp_path: Path, status: int, text: str) -> None:
    """The tests end with this status; all other steps succeed, and run."""
    programs = {"nvidia-smi": "exit 0", "python3": f'[ "$2" = pytest ] && exit {status}; exit 0'}
    for name, body in programs.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o700)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    out = tmp_path / "out"
    result = subprocess.run(
        ["bash", str(BENCHMARKS / "gpu.sh"), str(out)],
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": path},
    )
    assert result.returncode == (status != 0)
    assert text in result.stdout and (status != 0) == ("tests: " in result.stdout)
    assert (out / "log.txt").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_missing_gpu_is_reported(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([]) == 1
    assert "pass --device cpu" in capsys.readouterr().err


@needs_triton
def test_options_of_the_kernels_are_among_those_measured() -> None:
    module = runpy.run_path(str(BENCHMARKS / "gpu_options.py"))
    plans = {
        True: {plan for table in module["SEQUENCES"].values() for plan in table},
        False: {plan for table in module["CHUNKS"].values() for plan in table},
    }
    for B, d in ((64, 16), (1024, 16), (64, 32), (64, 64), (64, 128)):
        v = torch.empty(B, 4, 512, d, device="meta")
        chosen = options.chunk_options(v, d, 64)
        plan = (chosen["BT"], chosen["BK"], chosen["num_warps"])
        assert plan in plans[options.is_sequential(4 * B, d, d)]


@needs_triton
@pytest.mark.skipif(torch.cuda.is_available(), reason="products of a GPU are rounded differently")
def test_all_plans_compute_the_same() -> None:
    module = runpy.run_path(str(BENCHMARKS / "gpu_options.py"))
    shape = module["Shape"](1, 1, 20, 16)
    by_sequence, by_chunks = (
        module["run"](module["Options"](16, "ieee", sequential, 16, 16, 1), shape, "cpu")
        for sequential in (True, False)
    )
    assert module["difference"](by_sequence, by_chunks) < 1e-5
    assert module["difference"](by_sequence, [2 * x for x in by_chunks]) == pytest.approx(0.5)
