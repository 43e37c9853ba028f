"""Two processes train on three shards like one process on the joined batches."""

import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any
from weakref import ref

import numpy as np
import pandas as pd
import pytest
import torch
from lightning import Trainer
from pytorch_forecasting import GroupNormalizer
from torch.utils.data import DataLoader

from helpers.datasets import QUIET, make_table
from helpers.ddp_shards import BATCH, make_model
from helpers.torchrun import torchrun
from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet, ParquetShards
from pytorch_forecasting_mlstm.data.shard_loader import join_batches
from pytorch_forecasting_mlstm.models.base.checks.adoption import adopt_shards
from pytorch_forecasting_mlstm.models.base.scales import measure

SETTINGS: dict[str, Any] = {
    "time_idx": "t",
    "target": "y",
    "group_ids": ["series"],
    "max_encoder_length": 8,
    "max_prediction_length": 4,
    "min_encoder_length": 6,
    "time_varying_known_reals": ["price"],
    "time_varying_unknown_reals": ["y"],
}


def make_series() -> pd.DataFrame:
    """Make five series of different lengths, one of them constant."""
    table = make_table(n_series=5)
    number = table["series"].str[1:].astype(int)
    table.loc[number == 3, "y"] = 4.0
    return table[table["t"] < 26 - number].reset_index(drop=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shards")


@pytest.fixture(scope="module")
def shards(folder: Path) -> ParquetShards:
    table, paths = make_series(), []
    for number, names in enumerate((["s4"], ["s0", "s3"], ["s1", "s2"])):
        paths.append(folder / f"{number}.parquet")
        table[table["series"].isin(names)].to_parquet(paths[-1])
    fitted = ParquetShards.fit(
        paths, **SETTINGS, target_normalizer=GroupNormalizer(groups=["series"])
    )
    fitted.save(folder / "shards.pt")
    return fitted


@pytest.mark.filterwarnings("ignore:.* of the histories of target .* are constant:UserWarning")
def test_model_takes_over_the_scales_of_all_shards(shards: ParquetShards) -> None:
    whole = BatchedTimeSeriesDataSet(
        make_series(), **SETTINGS, target_normalizer=GroupNormalizer(groups=["series"])
    )
    expected = mLSTMTime.from_dataset(whole, hidden_size=8, num_heads=2).scale_table
    model = make_model(shards)
    adopt_shards(model, shards)
    for name in ("keys", "scales", "summary"):
        torch.testing.assert_close(getattr(model.scale_table, name), getattr(expected, name))
    assert len(model.hparams.series_scales["groups"]) == 5
    scaler = model.dataset_parameters["scalers"]["price"]
    np.testing.assert_allclose(scaler.mean_, whole._scalers["price"].mean_)


@pytest.mark.filterwarnings("ignore:.* of the histories of target .* are constant:UserWarning")
def test_each_shard_is_read_and_measured_once(
    shards: ParquetShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is in memory at a time."""
    model = make_model(shards)
    held: list[Any] = []
    read, measured, measure_shard = ParquetShards.__getitem__, Counter[int](), measure._measure

    def track(self: ParquetShards, number: int) -> Any:
        assert not [number for number, dataset in held if dataset() is not None]
        dataset = read(self, number)
        held.append((number, ref(dataset)))
        return dataset

    def count(dataset: Any, *arguments: Any) -> Any:
        measured[next(number for number, part in held if part() is dataset)] += 1
        return measure_shard(dataset, *arguments)

    monkeypatch.setattr(ParquetShards, "__getitem__", track)
    monkeypatch.setattr(measure, "_measure", count)
    adopt_shards(model, shards)
    assert [number for number, _ in held] == [0, 1, 2]
    assert measured == {0: 1, 1: 1, 2: 1}


def test_shards_of_other_columns_are_rejected(shards: ParquetShards) -> None:
    other = ParquetShards.fit(
        shards.paths,
        **{**SETTINGS, "time_varying_known_reals": []},
        target_normalizer=GroupNormalizer(groups=["series"]),
    )
    with pytest.raises(ValueError, match="the model was made for the real variables"):
        adopt_shards(make_model(shards), other)


Outcomes = list[dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def outcomes(folder: Path, shards: ParquetShards) -> Outcomes:
    torchrun("ddp_shards.py", folder)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in (0, 1)]


ddp = [
    pytest.mark.skipif(sys.platform == "win32", reason="torchrun with gloo needs POSIX"),
    pytest.mark.slow,
]


def slow(test: Any) -> Any:
    for mark in ddp:
        test = mark(test)
    return test


def keys(batch: Any) -> list[tuple[int, ...]]:
    x = batch[0]
    columns = [
        x["groups"],
        x["decoder_time_idx"][:, :1],
        x["encoder_lengths"][:, None],
    ]
    return list(map(tuple, torch.cat(columns, 1).tolist()))


@slow
def test_ddp_processes_share_the_windows_of_each_epoch(
    outcomes: Outcomes, shards: ParquetShards
) -> None:
    """Each is visited once, but for those that do not fill a batch of both processes."""
    total = sum(shards.windows)
    steps = total // (2 * BATCH)
    parts = [outcome["whole"]["batches"] for outcome in outcomes]
    assert [len(part) for part in parts] == [2 * steps] * 2
    assert total % (2 * BATCH)
    for epoch in (slice(steps), slice(steps, 2 * steps)):
        visited = Counter(key for part in parts for batch in part[epoch] for key in keys(batch))
        assert set(visited.values()) == {1}
        assert len(visited) == 2 * BATCH * steps


@slow
def test_ddp_steps_on_shards_match_one_process_on_the_joined_batches(
    outcomes: Outcomes, shards: ParquetShards
) -> None:
    first, second = (outcome["whole"] for outcome in outcomes)
    joined = [
        join_batches([first_batch, second_batch])
        for first_batch, second_batch in zip(first["batches"], second["batches"], strict=True)
    ]
    model = make_model(shards)
    adopt_shards(model, shards)
    trainer = Trainer(max_epochs=1, enable_checkpointing=False, **QUIET)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, DataLoader(joined, batch_size=None))  # type: ignore[arg-type]
    for name, weight in model.named_parameters():
        assert torch.equal(first["weights"][name], second["weights"][name])
        torch.testing.assert_close(first["weights"][name], weight.detach(), rtol=0, atol=1e-4)
    for name, values in first["scales"].items():
        assert torch.equal(values, second["scales"][name])
        assert torch.equal(values, model.hparams.series_scales[name])


@slow
def test_ddp_training_on_shards_resumes_within_an_epoch(outcomes: Outcomes) -> None:
    for outcome in outcomes:
        whole, resumed = outcome["whole"], outcome["resumed"]
        assert len(resumed["batches"]) == len(whole["batches"]) - 3
        for name, weight in whole["weights"].items():
            assert torch.equal(resumed["weights"][name], weight), name
        assert resumed["val_loss"] == whole["val_loss"]
