"""Several models of different seeds, whose forecasts are averaged and mixed with the linear one."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.forecasters import rich_stores, tiny
from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm._safe_files.serialization import deserialize, serialize
from pytorch_forecasting_mlstm.forecaster import Forecaster, InputError
from pytorch_forecasting_mlstm.forecaster.training import fitting
from pytorch_forecasting_mlstm.forecaster.training.seeds import member_seed

NUMBERS = ["prediction", "q0.1", "q0.5", "q0.9"]
SHARE = 0.75
NEW_KEYS = ("members", "linear", "share", "learning_rate", "effects")


@pytest.fixture(scope="module")
def two() -> Iterator[Forecaster]:
    """Return a forecaster of two models, and a linear one that has a quarter of the forecast."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(fitting, "choose_share", lambda *arguments: SHARE)
        yield tiny(members=2, minimum=None).fit(rich_stores())


def of_models(forecaster: Forecaster, **changes: Any) -> np.ndarray:
    """Return the forecast of some of the models."""
    state = forecaster._state
    other = tiny(minimum=None)
    other._state = replace(state, fitted=replace(state.fitted, **changes))
    return other.predict()[NUMBERS].to_numpy()


def weights_of(model: mLSTMTime) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


def test_forecast_is_the_mean_of_the_models_mixed_with_the_linear_one(two: Forecaster) -> None:
    fitted = two._state.fitted
    assert fitted.linear is not None and fitted.share == SHARE
    assert (fitted.calibration.shift == 0).all()  # there are too few rows: forecasts are linear
    singles = [of_models(two, models=(model,), linear=None, share=1.0) for model in fitted.models]
    linear = of_models(two, models=(fitted.linear,), linear=None, share=1.0)
    expected = SHARE * np.mean(singles, axis=0) + (1 - SHARE) * linear
    np.testing.assert_allclose(two.predict()[NUMBERS], expected, rtol=1e-6)
    assert np.abs(singles[0] - singles[1]).min() > 1e-4  # seeds differ
    assert np.abs(linear - singles[0]).max() > 1e-3
    # The order of the models does not matter.
    reversed_order = of_models(two, models=fitted.models[::-1])
    np.testing.assert_allclose(two.predict()[NUMBERS], reversed_order, rtol=1e-6)


def test_first_model_is_that_of_a_single_one(two: Forecaster) -> None:
    """Whatever is named a model is there: the first, and all of them."""
    assert len(two.models) == 2 and two.model is two.models[0]
    single = tiny().fit(rich_stores())
    assert len(single.models) == 1
    assert torch.equal(weights_of(single.model), weights_of(two.model))
    assert not torch.equal(weights_of(two.models[1]), weights_of(two.model))
    two.models.clear()
    assert len(two.models) == 2  # a copy of the list was cleared


def test_equal_seeds_give_equal_members(two: Forecaster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "choose_share", lambda *arguments: SHARE)
    again = tiny(members=2, minimum=None).fit(rich_stores())
    pd.testing.assert_frame_equal(again.predict(), two.predict(), check_exact=True)


def test_seeds_of_members_differ() -> None:
    """Those of forecasters with seeds next to each other, too."""
    seeds = [member_seed(seed, number) for seed in (0, 1, 2, 2**32 - 1) for number in range(100)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert [member_seed(seed, 0) for seed in (0, 7)] == [0, 7]
    assert seeds == [
        member_seed(seed, number) for seed in (0, 1, 2, 2**32 - 1) for number in range(100)
    ]


def test_default_is_three() -> None:
    assert Forecaster(3, time="date", target="sales").members == 3


def test_saved_members_forecast_the_same(two: Forecaster, tmp_path: Path) -> None:
    """All of them, the linear one too; and they learn the same from there."""
    two.save(tmp_path / "a.ckpt")
    loaded = Forecaster.load(tmp_path / "a.ckpt")
    pd.testing.assert_frame_equal(loaded.predict(), two.predict(), check_exact=True)
    newer = rich_stores(33)
    pd.testing.assert_frame_equal(loaded.predict(newer), two.predict(newer), check_exact=True)
    assert loaded.members == 2 and len(loaded.models) == 2
    one, other = loaded._state.fitted, two._state.fitted
    assert one.share == SHARE and one.learning_rate == other.learning_rate
    for model, original in zip(
        (*one.models, one.linear), (*other.models, other.linear), strict=True
    ):
        assert model is not None and original is not None
        assert torch.equal(weights_of(model), weights_of(original))
    first, second = mLSTMTime.load_from_checkpoint(tmp_path / "a.ckpt"), two.model
    assert torch.equal(weights_of(first), weights_of(second))
    loaded.save(tmp_path / "b.ckpt")
    again = Forecaster.load(tmp_path / "b.ckpt")
    pd.testing.assert_frame_equal(again.predict(), two.predict(), check_exact=True)
    forecasts = [one.update(newer, epochs=1).predict() for one in (again, loaded)]
    pd.testing.assert_frame_equal(*forecasts, check_exact=True)


def rewrite(source: Path, file: Path, change: Any) -> Path:
    """Write the file of a forecaster with changed values."""
    content = torch.load(source, weights_only=True)
    values = deserialize(content["forecaster"])
    change(values)
    content["forecaster"] = serialize(values)
    torch.save(content, file)
    return file


def test_file_of_the_first_format_has_one_model(two: Forecaster, tmp_path: Path) -> None:
    two.save(tmp_path / "new.ckpt")

    def make_old(values: dict[str, Any]) -> None:
        values["format"] = 1
        del values["parameter members"]
        for key in NEW_KEYS:
            del values["fitted"][key]

    old = Forecaster.load(rewrite(tmp_path / "new.ckpt", tmp_path / "old.ckpt", make_old))
    assert len(old.models) == 1 and old._state.fitted.linear is None
    expected = of_models(two, models=two._state.fitted.models[:1], linear=None, share=1.0)
    np.testing.assert_array_equal(old.predict()[NUMBERS], expected)
    assert len(old.update(rich_stores(33), epochs=1).models) == 1
    old.save(tmp_path / "again.ckpt")
    assert len(Forecaster.load(tmp_path / "again.ckpt").models) == 1


def test_file_of_a_later_format_or_with_damaged_members_is_refused(
    two: Forecaster, tmp_path: Path
) -> None:
    two.save(tmp_path / "a.ckpt")
    name = next(iter(two.model.state_dict()))

    def spoil(values: dict[str, Any], part: str, weight: Any) -> None:
        learned = values["fitted"]
        weights = learned[part] if part == "linear" else learned[part][0]
        if weight is None:
            del weights[name]
        else:
            weights[name] = weight

    weight = two.model.state_dict()[name]
    changes = [
        lambda values: values.update(format=5),
        *[
            lambda values, part=part, wrong=wrong: spoil(values, part, wrong)
            for part in ("members", "linear")
            for wrong in (None, weight[..., None], torch.full_like(weight, torch.nan), "text")
        ],
        lambda values: values["fitted"].update(members=3),
        lambda values: values["fitted"].pop("effects"),
        *[
            lambda values, effect=effect: values["fitted"].update(effects=[effect])
            for effect in (
                {"kind": "trading days", "weekend": -0.5},
                {"kind": "trading days", "weekend": np.nan, "follows": np.ones(2, dtype=bool)},
                {"kind": "trading days", "weekend": -0.5, "follows": np.ones(3, dtype=bool)},
                {
                    "kind": "special days",
                    "rules": np.array([11225]),
                    "effects": np.array([-0.5, 0.5]),
                    "follows": np.ones(2, dtype=bool),
                },
                *(
                    {
                        "kind": "common season",
                        "changes": changes,
                        "follows": np.ones(2, dtype=bool),
                    }
                    for changes in (
                        np.zeros(11),
                        -np.ones(12),
                        np.full(12, np.nan),
                        np.full(12, 1e9),
                    )
                ),
                {"kind": "no such", "weekend": -0.5, "follows": np.ones(2, dtype=bool)},
            )
        ],
        lambda values: values["fitted"].update(share="half"),
        lambda values: values["fitted"].update(share=float("nan")),
    ]
    for number, change in enumerate(changes):
        file = rewrite(tmp_path / "a.ckpt", tmp_path / f"{number}.ckpt", change)
        with pytest.raises(InputError) as error:
            Forecaster.load(file)
        assert f"{number}.ckpt" in str(error.value) and "\n" not in str(error.value), number
    with pytest.raises(InputError, match="has format 5, but this version reads 4: update"):
        Forecaster.load(tmp_path / "0.ckpt")


def test_update_trains_every_model_and_leaves_the_linear_one(two: Forecaster) -> None:
    """Each as it would be trained alone; the forecaster before stays as it was."""
    before, expected = two._state, two.predict()
    updated = tiny(members=2, minimum=None)
    updated._state = before
    new = pd.concat([rich_stores(34), rich_stores(20, ("c",), "2024-01-15")])
    updated.update(new, epochs=1)
    after = updated._state.fitted
    assert len(after.models) == 2 and after.share == SHARE
    for old, model in zip(before.fitted.models, after.models, strict=True):
        assert not torch.equal(weights_of(old), weights_of(model))
    assert before.fitted.linear is not None and after.linear is not None
    assert after.linear is not before.fitted.linear
    assert torch.equal(weights_of(after.linear), weights_of(before.fitted.linear))
    alone = tiny(minimum=None)
    alone._state = replace(
        before, fitted=replace(before.fitted, models=before.fitted.models[:1], linear=None)
    )
    alone.update(new, epochs=1)
    assert torch.equal(weights_of(alone.model), weights_of(updated.model))
    forecast = updated.predict()
    assert forecast["store"].unique().tolist() == ["a", "b", "c"]
    assert np.isfinite(forecast[NUMBERS]).all(axis=None)
    pd.testing.assert_frame_equal(two.predict(), expected, check_exact=True)
