"""benchmarks/foundation.py shows models what is known, and no more, and places what they return.

The packages of the models are not needed by this project. Where they are installed, small models of
random weights, saved in a folder, are loaded and run; elsewhere, stand-ins with their interfaces.
"""

from __future__ import annotations

import importlib
import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NAMES = ("_covariate_tables", "_forecast_scores", "_foundation_models", "foundation", "gift_eval")
LEVELS = [round(0.1 * k, 1) for k in range(1, 10)]


@pytest.fixture(scope="module")
def modules() -> Iterator[SimpleNamespace]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield SimpleNamespace(**{name.strip("_"): importlib.import_module(name) for name in NAMES})


# Windows and tables


def remember(calls: list[Any]) -> Any:
    """Make a model that continues the last value, plus 10 a step, plus the level."""

    def forecast(windows: list[Any], horizon: int) -> np.ndarray:
        calls.append((windows, horizon))
        steps = 10 * np.arange(horizon)[:, None] + np.array(LEVELS)
        return np.stack([window.target[-1] + steps for window in windows])

    return forecast


def test_windows_of_gift_eval_end_where_the_forecast_begins(modules: SimpleNamespace) -> None:
    days = pd.date_range("2024-01-01", periods=12)
    table = pd.concat(
        [
            pd.DataFrame({"item": "b", "date": days, "y": 100.0 + np.arange(12)}),
            pd.DataFrame({"item": "a", "date": days[3:], "y": 1.0 * np.arange(9)}),
        ]
    ).iloc[::-1]
    task = modules.gift_eval.Task("t_D/short", "t/D/short", table, horizon=3, windows=2, season=1)
    calls: list[Any] = []
    forecasts = modules.foundation.forecast_gift(task, remember(calls))
    ends = [[window.target[-1] for window in windows] for windows, _ in calls]
    assert ends == [[2, 105], [5, 108]]
    assert [len(calls[0][0][0].target), len(calls[0][0][1].target)] == [3, 6]
    row = forecasts[(forecasts["item"] == "a") & (forecasts["date"] == days[11])].iloc[0]
    assert (row["cutoff"], row["prediction"], row["q0.9"]) == (days[8], 25.5, 25.9)
    score = modules.forecast_scores.score_forecasts(
        forecasts, table, time="date", target="y", series=["item"], season=1
    )
    # with errors of 0.5 - 1, 10.5 - 2 and 20.5 - 3, in units of a step of 1
    assert score.mae == score.mase == pytest.approx((0.5 + 8.5 + 17.5) / 3)
    assert score.values == 12


def covariate_task(modules: SimpleNamespace) -> Any:
    steps = np.arange(10)
    days = pd.date_range("2024-01-01", periods=10)
    table = pd.concat(
        pd.DataFrame(
            {
                "date": days,
                "shop": shop,
                "y": base + steps,
                "price": base + 2.0 * steps,
                "visits": base + 3.0 * steps,
                "kind": np.where(steps % 2, "odd", "even"),
            }
        )
        for shop, base in (("a", 0.0), ("b", 50.0))
    )
    spec = modules.covariate_tables.Table(
        lambda folder: table,
        horizon=2,
        seasons=(1,),
        time="date",
        target="y",
        group=("shop",),
        known=("price", "kind"),
        past=("visits",),
        windows=2,
    )
    return modules.covariate_tables.Task("shops", spec, table.reset_index(drop=True), 2)


def test_covariates_are_shown_as_far_as_they_are_known(modules: SimpleNamespace) -> None:
    calls: list[Any] = []
    task = covariate_task(modules)
    forecasts = modules.foundation.forecast_covariates(task, remember(calls), univariate=False)
    (first, second), horizon = calls[0]
    assert horizon == 2
    assert second.target.tolist() == [50, 51, 52, 53, 54, 55]
    assert second.past.tolist() == [[50, 53, 56, 59, 62, 65]]
    assert second.known.tolist() == [[50 + 2 * k for k in range(8)], [0, 1] * 4]
    assert first.known.shape == (2, 8)
    assert [len(windows[0].target) for windows, _ in calls] == [6, 8]
    row = forecasts[(forecasts["shop"] == "b") & (forecasts["q0.1"] == 67.1)].iloc[0]
    assert (row["date"], row["prediction"]) == (pd.Timestamp("2024-01-10"), 67.5)

    calls.clear()
    modules.foundation.forecast_covariates(task, remember(calls), univariate=True)
    assert [len(calls[0][0][0].past), len(calls[0][0][0].known)] == [0, 0]


def test_no_table_of_positive_values_gets_a_negative_forecast(modules: SimpleNamespace) -> None:
    forecasts = modules.foundation.forecast_covariates(
        covariate_task(modules), lambda windows, horizon: -np.ones((2, 2, 9)), univariate=False
    )
    assert (forecasts[[f"q{level:g}" for level in LEVELS]] == 0).all(axis=None)


# Interfaces of the packages


def windows_of(modules: SimpleNamespace, covariates: bool) -> list[Any]:
    generator = np.random.default_rng(0)
    past, known = (1, 2) if covariates else (0, 0)
    return [
        modules.foundation_models.Window(
            generator.normal(size=steps).cumsum(),
            generator.normal(size=(past, steps)),
            generator.normal(size=(known, steps + 7)),
        )
        for steps in (70, 45)
    ]


class StandInChronos:
    """`chronos.Chronos2Pipeline`, as far as it is used: forecasts the sum of what it sees."""

    @classmethod
    def from_pretrained(cls, weights: str, device_map: str) -> StandInChronos:
        assert (weights, device_map) == ("folder", "cpu")
        return cls()

    def predict_quantiles(
        self,
        inputs: list[Any],
        prediction_length: int,
        quantile_levels: list[float],
        batch_size: int,
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        quantiles = []
        for series in inputs:
            past, future = series["past_covariates"], series["future_covariates"]
            assert future.keys() <= past.keys()
            assert {len(x) for x in past.values()} <= {len(series["target"])}
            seen = sum(float(x.sum()) for x in (series["target"], *past.values()))
            steps = sum((torch.as_tensor(x) for x in future.values()), torch.zeros(7))
            quantiles.append((seen + steps[:, None] + torch.tensor(quantile_levels))[None])
        return quantiles, [x[..., 4] for x in quantiles]


class StandInTirex:
    """The model of `tirex2.load_model`, as far as it is used."""

    quantiles = torch.tensor(LEVELS)

    def forecast(
        self, series: list[Any], *, prediction_length: int, output_type: str, batch_size: int
    ) -> list[np.ndarray]:
        assert output_type == "numpy"
        forecasts = []
        for one in series:
            seen, steps = one.target.sum(), torch.zeros(prediction_length)
            if one.past_covariates is not None:
                seen = seen + one.past_covariates.sum()
            if one.future_covariates is not None:
                seen = seen + one.future_covariates[:, :-prediction_length].sum()
                steps = steps + one.future_covariates[:, -prediction_length:].sum(0)
            forecasts.append((seen + steps + self.quantiles[:, None])[None].numpy())
        return forecasts


class StandInTimesFM:
    """`timesfm3.TimesFM3Evaluator`, as far as it is used."""

    def __init__(self, config: Any) -> None:
        assert (config.checkpoint_path, config.device) == ("folder", "cpu")
        self.config = SimpleNamespace(quantiles=LEVELS)

    def predict_batch(
        self,
        contexts: list[np.ndarray],
        horizon: int,
        past_only_covariates: list[Any],
        past_future_covariates: list[Any],
        return_quantiles: bool,
    ) -> Iterator[Any]:
        assert return_quantiles
        for target, past, known in zip(
            contexts, past_only_covariates, past_future_covariates, strict=True
        ):
            seen, steps = target.sum(), np.zeros(horizon)
            if past is not None:
                seen = seen + past.sum()
            if known is not None:
                seen, steps = seen + known[:, :-horizon].sum(), known[:, -horizon:].sum(0)
            yield SimpleNamespace(quantiles=seen + steps[:, None] + np.array(LEVELS))


def install_stand_ins(patch: pytest.MonkeyPatch) -> None:
    packages: dict[str, dict[str, Any]] = {
        "chronos": {"Chronos2Pipeline": StandInChronos},
        "tirex2": {
            "load_model": lambda weights, device: StandInTirex(),
            "TimeseriesType": SimpleNamespace,
        },
        "timesfm3": {"ModelConfig": SimpleNamespace, "TimesFM3Evaluator": StandInTimesFM},
    }
    for name, contents in packages.items():
        module = ModuleType(name)
        vars(module).update(contents)
        patch.setitem(sys.modules, name, module)


@pytest.mark.parametrize("covariates", [True, False])
@pytest.mark.parametrize("name", ["chronos-2", "tirex-2", "timesfm-3"])
def test_models_see_everything_that_is_known(
    modules: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, name: str, covariates: bool
) -> None:
    install_stand_ins(monkeypatch)
    forecast = modules.foundation_models.FOUNDATION_MODELS[name].load("folder", "cpu", 2)
    windows = windows_of(modules, covariates)
    expected = [
        (
            window.target.sum()
            + window.past.sum()
            + window.known[:, :-7].sum()
            + window.known[:, -7:].sum(0)
        )[..., None]
        + np.array(LEVELS)
        for window in windows
    ]
    np.testing.assert_allclose(forecast(windows, 7), expected, rtol=1e-4, atol=1e-4)


def save_chronos(folder: Path) -> None:
    chronos2 = pytest.importorskip("chronos.chronos2")
    config = importlib.import_module("chronos.chronos2.config").Chronos2CoreConfig(
        d_model=8, d_kv=4, d_ff=16, num_layers=2, num_heads=2, reg_token_id=1
    )
    config.chronos_config = {
        "context_length": 64, "input_patch_size": 8, "input_patch_stride": 8,
        "max_output_patches": 4, "output_patch_size": 8, "quantiles": LEVELS,
        "use_arcsinh": True, "use_reg_token": True, "time_encoding_scale": 64,
    }  # fmt: skip
    chronos2.Chronos2Model(config).save_pretrained(folder)


def save_timesfm(folder: Path) -> None:
    package = pytest.importorskip("timesfm3.torch")
    configs = importlib.import_module("timesfm3.torch.configs")
    block = configs.ResidualBlockConfig(16, 16, use_bias=False, activation="relu")
    transformer = configs.TransformerConfig(
        model_dims=16, hidden_dims=16, num_heads=2, attention_norm="rms", feedforward_norm="rms",
        qk_norm="rms", use_bias=False, use_rope_seq=True, use_rope_var=True, ff_activation="relu",
        deterministic=True,
    )  # fmt: skip
    model = package.TimesFM3Torch(
        residual_block_config=block,
        transformer_config=configs.StackedTransformersConfig(2, transformer),
    )
    model.pre_transformer_resblock.set_input_dims(
        2 * (model.input_patch_len + model.output_patch_len)
    )
    model.save_pretrained(folder)


PATCHES = ("output_patch_size", "input_patch_size", "input_patch_stride")


def save_tirex(folder: Path) -> None:
    package = pytest.importorskip("tirex2")
    from safetensors.torch import save_file

    config: dict[str, Any] = {
        "stack_config": {
            "templates": {
                kind: {
                    "time_mixer": {"model_type": kind, "embedding_dim": 16, "num_heads": 2},
                    "variate_mixer": {"embedding_dim": 16, "num_heads": 2},
                    "dropout": 0.0,
                    "eps": 1e-6,
                }
                for kind in ("bi-slstm", "bi-mlstm")
            },
            "recipe": ["bi-mlstm", "bi-slstm"],
        },
        "num_blocks": 2, "embedding_dim": 16, "input_patch_size": 8, "output_patch_size": 8,
        "quantiles": LEVELS, "tokenizer_cfg": dict.fromkeys(PATCHES, 8), "scaler_cfg": {},
        "h_expand": 1.0, "context_len": 64, "future_len": 8, "input_ff_dim": 16,
        "act_func": "ReLU", "dropout": 0.0,
    }  # fmt: skip
    model = package.TiRex2(**config, device="cpu")
    groups = importlib.import_module("tirex2._state_dict").shared_tensor_groups(model)
    duplicates = {name for group in groups for name in group[1:]}
    weights = {
        name: tensor.contiguous()
        for name, tensor in model.state_dict().items()
        if name not in duplicates
    }
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


SAVE = {"chronos-2": save_chronos, "tirex-2": save_tirex, "timesfm-3": save_timesfm}


@pytest.mark.filterwarnings("ignore")  # those of the packages
@pytest.mark.parametrize("covariates", [True, False])
@pytest.mark.parametrize("name", list(SAVE))
def test_saved_models_forecast(
    modules: SimpleNamespace, tmp_path: Path, name: str, covariates: bool
) -> None:
    torch.manual_seed(0)
    SAVE[name](tmp_path)
    forecast = modules.foundation_models.FOUNDATION_MODELS[name].load(str(tmp_path), "cpu", 2)
    windows = windows_of(modules, covariates)
    quantiles = forecast(windows, 7)
    assert quantiles.shape == (2, 7, 9)
    assert np.isfinite(quantiles).all()
    for number, window in enumerate(windows):  # each window has a forecast of its own
        np.testing.assert_allclose(
            forecast([window], 7)[0], quantiles[number], rtol=1e-3, atol=1e-3
        )


def test_weights_without_the_levels_are_rejected(modules: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match=r"^TiRex-2: .* must forecast the levels .* got \[0\.5\]"):
        modules.foundation_models._places([0.5], "TiRex-2")


# The command line


def run(modules: SimpleNamespace, patch: pytest.MonkeyPatch, *arguments: str) -> None:
    patch.setattr("sys.argv", ["foundation.py", *arguments])
    modules.foundation.main()


def test_results_stand_beside_the_leaderboard(
    modules: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("pyarrow")
    days = pd.date_range("2024-01-01", periods=90)
    table = pd.DataFrame({"item": "a", "date": days, "y": 1.0 * np.arange(90)})
    table.to_parquet(tmp_path / "line_D.parquet")
    pd.DataFrame({"key": ["line_D/short"], "m": "other", "MASE": 2.0, "CRPS": 0.5}).to_csv(
        tmp_path / "leaderboard.csv", index=False
    )
    monkeypatch.setitem(
        modules.foundation.FOUNDATION_MODELS,
        "chronos-2",
        modules.foundation_models.Foundation(lambda *_: remember([]), "weights", "json", "json"),
    )
    monkeypatch.setitem(
        modules.foundation.FOUNDATION_MODELS,
        "tirex-2",
        modules.foundation_models.Foundation(lambda *_: None, "weights", "no_such_module", "thing"),
    )

    def fail(*_: Any) -> None:
        raise OSError("no network\nand more")

    monkeypatch.setitem(
        modules.foundation.FOUNDATION_MODELS,
        "timesfm-3",
        modules.foundation_models.Foundation(fail, "hub/weights", "json", "json"),
    )
    file = tmp_path / "results.csv"
    run(modules, monkeypatch, "--data", str(tmp_path), "--output", str(file))
    printed = capsys.readouterr().out
    assert "tirex-2 is left out: pip install 'thing'" in printed
    assert "timesfm-3 is left out, without hub/weights: no network\n" in printed
    results = pd.read_csv(file)
    assert results[["key", "model", "values"]].to_numpy().tolist() == [
        ["line_D/short", "chronos-2", 30]
    ]
    expected = np.abs(10 * np.arange(30) + 0.5 - np.arange(1, 31)).mean()
    assert results["MASE"].item() == pytest.approx(expected)
    assert f"other  {expected / 2:.3f}" in printed


def test_wrong_weights_are_a_mistake_of_the_command_line(
    modules: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(modules, monkeypatch, "--data", ".", "--weights", "gpt=folder")
    assert "--weights: must be MODEL=WEIGHTS" in capsys.readouterr().err


def test_tables_of_both_kinds_are_measured(modules: SimpleNamespace, tmp_path: Path) -> None:
    task = covariate_task(modules)
    options = Namespace(keys=["shops"], development=False, univariate=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modules.foundation, "read_task", lambda *_: task)
        (measured,) = modules.foundation.measure_covariates(tmp_path, remember([]), options)
    assert (measured.key, measured.score.values) == ("shops", 8)
    assert measured.score.mae == pytest.approx((0.5 + 8.5) / 2)
