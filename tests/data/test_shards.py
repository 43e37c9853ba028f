"""Shards of a table give the windows and the values of a dataset of the whole table."""

from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import Any
from weakref import ref

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_forecasting import (
    EncoderNormalizer,
    GroupNormalizer,
    MultiNormalizer,
    NaNLabelEncoder,
)
from pytorch_forecasting.data import TorchNormalizer
from sklearn.preprocessing import RobustScaler

from helpers.batched_configurations import panel
from pytorch_forecasting_mlstm.data import (
    BatchedTimeSeriesDataSet,
    ParquetShards,
    shard_loader,
    shard_statistics,
)

GROUPS = ["shop", "product"]
SETTINGS: dict[str, Any] = {
    "time_idx": "time",
    "target": "y",
    "group_ids": GROUPS,
    "max_encoder_length": 9,
    "max_prediction_length": 4,
    "time_varying_unknown_reals": ["y"],
}
COVARIATES: dict[str, Any] = {
    "static_categoricals": ["region"],
    "static_reals": ["size"],
    "time_varying_known_categoricals": ["day", "holidays"],
    "variable_groups": {"holidays": ["holiday_a", "holiday_b"]},
    "time_varying_known_reals": ["time", "price"],
    "time_varying_unknown_categoricals": ["sky"],
    "time_varying_unknown_reals": ["y", "rain"],
    "min_encoder_length": 2,
    "min_prediction_length": 1,
}


def configurations() -> dict[str, dict[str, Any]]:
    return {
        "series": {"target_normalizer": GroupNormalizer(groups=GROUPS)},
        "histories": {"target_normalizer": EncoderNormalizer()},
        "covariates": {
            **COVARIATES,
            "target_normalizer": GroupNormalizer("robust", groups=GROUPS),
            "weight": "weight",
            "add_relative_time_idx": True,
            "add_target_scales": True,
            "categorical_encoders": {"sky": NaNLabelEncoder(add_nan=True)},
            "scalers": {"rain": GroupNormalizer(groups=GROUPS), "price": None},
        },
        "lags": {
            "target_normalizer": EncoderNormalizer(transformation="relu"),
            "lags": {"y": [1, 5], "rain": [3]},
            "time_varying_unknown_reals": ["y", "rain"],
            "scalers": {"rain": EncoderNormalizer()},
        },
        "labels": {
            "target": ["state", "y"],
            "time_varying_unknown_categoricals": ["state"],
            "target_normalizer": MultiNormalizer([NaNLabelEncoder(), EncoderNormalizer()]),
        },
        "fitted before": {
            "target_normalizer": TorchNormalizer().fit(panel()["y"]),
            "time_varying_known_reals": ["price"],
            "scalers": {"price": RobustScaler().fit(panel()[["price"]])},
        },
        "missing values": {
            "target_normalizer": EncoderNormalizer(),
            "time_varying_known_reals": ["price"],
        },
        "scales of two targets": {
            "target": ["y", "rain"],
            "time_varying_unknown_reals": ["y", "rain"],
            "target_normalizer": MultiNormalizer(
                [GroupNormalizer(groups=GROUPS), GroupNormalizer(groups=GROUPS)]
            ),
            "add_target_scales": True,
        },
    }


def make_table(name: str) -> pd.DataFrame:
    table = panel(lengths=(24, 20, 26, 19, 31))
    if name == "missing values":
        table = table.copy()
        table.loc[[3, 30, 31], ["y", "price"]] = np.nan
    return table


def write(folder: Path, table: pd.DataFrame) -> list[Path]:
    """Write five series to three files: unequal, not sorted, and with an index of their own."""
    number = table.groupby(GROUPS, sort=False).ngroup()
    paths = []
    for name, chosen in (("a", [4]), ("b", [0, 3]), ("c", [2, 1])):
        path = folder / f"{name}.parquet"
        table[number.isin(chosen)].sample(frac=1, random_state=0).to_parquet(path)
        paths.append(path)
    return paths


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> ParquetShards:
    paths = write(tmp_path_factory.mktemp("shards"), make_table("series"))
    return ParquetShards.fit(paths, **SETTINGS, **configurations()["series"])


@pytest.fixture
def shards(written: ParquetShards) -> ParquetShards:
    return deepcopy(written)


@pytest.fixture
def paths(written: ParquetShards) -> list[str]:
    return list(written.paths)


def window_keys(batch: Any) -> list[tuple[int, ...]]:
    """Identify windows by series, time and lengths."""
    x = batch[0]
    numbers = [
        x["groups"],
        x["decoder_time_idx"][:, :1],
        x["encoder_lengths"][:, None],
        x["decoder_lengths"][:, None],
    ]
    return list(map(tuple, torch.cat(numbers, 1).tolist()))


def every_key(shards: ParquetShards) -> Counter[tuple[int, ...]]:
    return Counter(
        key
        for shard in shards
        for key in window_keys(shard.__getitems__(range(len(shard))).collate())
    )


def load(shards: ParquetShards, batch_size: int = 3, **options: Any) -> list[Any]:
    loader = shards.to_dataloader(batch_size=batch_size, **options)
    batches = list(loader)
    assert len(batches) == len(loader)
    return batches


def keys_of(batches: list[Any]) -> Counter[tuple[int, ...]]:
    return Counter(key for batch in batches for key in window_keys(batch))


@pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning")
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning")
@pytest.mark.parametrize("name", configurations())
def test_shards_give_the_windows_of_the_whole_table(tmp_path: Path, name: str) -> None:
    """Each once, with the same values up to rounding, also where a batch spans two shards."""
    table = make_table(name)
    settings = SETTINGS | configurations()[name]
    shards = ParquetShards.fit(write(tmp_path, table), **settings)
    whole = BatchedTimeSeriesDataSet(table, **(SETTINGS | configurations()[name]))
    keys = window_keys(whole.__getitems__(range(len(whole))).collate())
    places = {key: place for place, key in enumerate(keys)}
    assert len(places) == len(whole) == sum(shards.windows)
    for train in (False, True):
        batches = load(shards, batch_size=7, train=train)
        visited = keys_of(batches)
        left_out = len(whole) % 7 if train else 0
        assert sum(visited.values()) == len(whole) - left_out
        assert set(visited.values()) == {1}
        for batch in batches:
            expected = whole.__getitems__([places[key] for key in window_keys(batch)]).collate()
            torch.testing.assert_close(batch, expected, rtol=1e-5, atol=1e-5, equal_nan=True)


def test_statistics_of_shards_are_those_of_the_whole_table(tmp_path: Path) -> None:
    table, settings = make_table("covariates"), SETTINGS | configurations()["covariates"]
    shards = ParquetShards.fit(write(tmp_path, table), **settings)
    whole = BatchedTimeSeriesDataSet(table, **(SETTINGS | configurations()["covariates"]))
    for encoder, expected in zip(
        shards.parameters["categorical_encoders"].values(),
        whole._categorical_encoders.values(),
        strict=True,
    ):
        assert encoder.classes_ == expected.classes_
    assert [*shards.parameters["categorical_encoders"]] == [*whole._categorical_encoders]
    for name, scaler in whole._scalers.items():
        merged = shards.parameters["scalers"][name]
        assert type(merged) is type(scaler)
        if hasattr(scaler, "mean_"):
            for part in ("mean_", "var_", "scale_"):
                np.testing.assert_allclose(getattr(merged, part), getattr(scaler, part), rtol=1e-12)
    for normalizer, expected in (
        (shards.parameters["target_normalizer"], whole.target_normalizer),
        (shards.parameters["scalers"]["rain"], whole._scalers["rain"]),
    ):
        pd.testing.assert_frame_equal(normalizer.norm_, expected.norm_)
        assert normalizer.missing_ == expected.missing_
    assert shards.parameters["min_prediction_idx"] == whole.min_prediction_idx


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, bool]]:
    """Count the reads of each file: in full, and of some columns."""
    counts: Counter[tuple[str, bool]] = Counter()
    read = pd.read_parquet

    def count(path: Any, columns: Any = None) -> pd.DataFrame:
        counts[Path(path).stem, columns is None] += 1
        return read(path, columns=columns)

    monkeypatch.setattr(pd, "read_parquet", count)
    return counts


@pytest.mark.parametrize("name", ["series", "labels"])
def test_fit_reads_each_file_in_full_once(
    tmp_path: Path, reads: Counter[tuple[str, bool]], name: str
) -> None:
    """The first file twice: it also tells which columns hold labels."""
    paths = write(tmp_path, make_table(name))
    shards = ParquetShards.fit(paths, **(SETTINGS | configurations()[name]))
    full = {name: count for (name, is_full), count in reads.items() if is_full}
    parts = {name: count for (name, is_full), count in reads.items() if not is_full}
    assert full == {"a": 2, "b": 1, "c": 1}
    assert parts == {"a": 1, "b": 2, "c": 2}
    assert shards.windows == [len(shard) for shard in shards]


def test_representative_dataset_reads_each_file_in_full_once(
    written: ParquetShards, paths: list[str], reads: Counter[tuple[str, bool]]
) -> None:
    shard = written[0]
    reads.clear()
    again = ParquetShards(paths, shard)
    assert set(reads.values()) == {1}
    assert len(reads) == 2 * len(paths)
    assert again.windows == written.windows


def test_settings_of_the_caller_are_left_unfitted(paths: list[str]) -> None:
    normalizer = GroupNormalizer(groups=GROUPS)
    ParquetShards.fit(paths, **SETTINGS, target_normalizer=normalizer)
    assert not hasattr(normalizer, "norm_")


def test_representative_dataset_numbers_all_series(paths: list[str]) -> None:
    """Series that it does not have get codes of their own, and the median scale."""
    encoders = {name: NaNLabelEncoder(add_nan=True, warn=False) for name in GROUPS}
    part = BatchedTimeSeriesDataSet(
        pd.read_parquet(paths[1]).reset_index(drop=True),
        **SETTINGS,
        categorical_encoders=encoders,
        target_normalizer=EncoderNormalizer(),
    )
    before = dict(part._categorical_encoders["__group_id__shop"].classes_)
    shards = ParquetShards(paths, part)
    codes = [set(map(tuple, shard.data["groups"].tolist())) for shard in shards]
    assert sum(map(len, codes)) == len(set().union(*codes)) == 5
    assert part._categorical_encoders["__group_id__shop"].classes_ == before
    assert sum(keys_of(load(shards, train=False)).values()) == sum(shards.windows)


@pytest.mark.parametrize("processes", [2, 5])
@pytest.mark.parametrize("batch_size", [4, 30])
def test_processes_share_the_windows_evenly(
    shards: ParquetShards, monkeypatch: pytest.MonkeyPatch, processes: int, batch_size: int
) -> None:
    """All have as many batches of the same sizes; no window comes twice, and few are left out."""
    every = every_key(shards)
    for train in (True, False):
        visited: Counter[tuple[int, ...]] = Counter()
        sizes = []
        for rank in range(processes):
            monkeypatch.setattr(shard_loader, "find_process", lambda r=rank: (r, processes))
            batches = load(shards, batch_size, train=train)
            visited += keys_of(batches)
            sizes.append([len(window_keys(batch)) for batch in batches])
        assert all(part == sizes[0] for part in sizes)
        assert visited.keys() <= every.keys()
        total, added = len(every), sum(visited.values()) - len(visited)
        if train and total >= processes * batch_size:
            assert set(sizes[0]) == {batch_size}
            assert added == 0
            assert len(visited) == total - total % (processes * batch_size)
        else:
            assert visited.keys() == every.keys()
            assert added < processes


def test_fewer_windows_than_processes_are_repeated(
    paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = tmp_path / "short.parquet"
    pd.read_parquet(paths[0]).sort_values("time").head(14).to_parquet(short)
    shards = ParquetShards.fit([short], **SETTINGS, **configurations()["series"])
    assert shards.windows == [2]
    for rank in range(5):
        monkeypatch.setattr(shard_loader, "find_process", lambda r=rank: (r, 5))
        assert [len(window_keys(batch)) for batch in load(shards, 4)] == [1]


def test_order_depends_on_seed_and_epoch(shards: ParquetShards) -> None:
    def order(seed: int, epoch: int) -> list[list[tuple[int, ...]]]:
        loader = shards.to_dataloader(batch_size=4, seed=seed)
        loader.sampler.set_epoch(epoch)
        return [window_keys(batch) for batch in loader]

    torch.manual_seed(1)
    first = order(0, 0)
    torch.manual_seed(2)
    assert order(0, 0) == first
    others = [order(0, 1), order(1, 0), order(1, 1)]
    assert all(other != first for other in others)
    assert others[0] != others[1] != others[2]
    shard_orders = {tuple(key[:2] for batch in part for key in batch) for part in [first, *others]}
    assert len(shard_orders) > 1


def test_random_lengths_do_not_depend_on_the_global_generator(paths: list[str]) -> None:
    settings = {**COVARIATES, "randomize_length": True, "target_normalizer": EncoderNormalizer()}
    shards = ParquetShards.fit(paths, **(SETTINGS | settings))
    torch.manual_seed(1)
    first = load(shards)
    state = torch.get_rng_state()
    second = load(shards)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("done", [0, 1, 6, 11])
def test_loader_resumes_within_an_epoch(
    shards: ParquetShards, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    """It reads no shard whose batches are done."""
    loader = shards.to_dataloader(batch_size=5, seed=3)
    loader.set_epoch(2)
    batches = iter(loader)
    for _ in range(done):
        next(batches)
    state = loader.state_dict()
    expected = list(batches)
    opened: list[int] = []
    read = ParquetShards.__getitem__
    monkeypatch.setattr(
        ParquetShards, "__getitem__", lambda self, n: (opened.append(n), read(self, n))[1]
    )
    resumed = shards.to_dataloader(batch_size=5, seed=3)
    resumed.load_state_dict(state)
    resumed.set_epoch(2)
    torch.testing.assert_close(list(resumed), expected, rtol=0, atol=0)
    assert len(opened) == len(set(opened)) <= 3
    if done == 11:
        assert len(opened) < 3
    resumed.load_state_dict(state)
    resumed.set_epoch(3)  # the state is of another epoch
    assert len(list(resumed)) == len(resumed)


def test_one_shard_is_held_at_a_time(
    shards: ParquetShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[Any] = []
    read = ParquetShards.__getitem__

    def track(self: ParquetShards, number: int) -> Any:
        assert not [dataset for dataset in held if dataset() is not None]
        dataset = read(self, number)
        held.append(ref(dataset))
        return dataset

    monkeypatch.setattr(ParquetShards, "__getitem__", track)
    for _ in shards.to_dataloader(batch_size=7):
        pass
    assert len(held) == 3


def test_saved_shards_give_the_same_batches(shards: ParquetShards, tmp_path: Path) -> None:
    shards.save(tmp_path / "shards.pt")
    loaded = ParquetShards.load(tmp_path / "shards.pt")
    torch.testing.assert_close(load(loaded), load(shards), rtol=0, atol=0)


def test_series_in_two_files_are_rejected(paths: list[str], tmp_path: Path) -> None:
    extra = tmp_path / "d.parquet"
    pd.read_parquet(paths[2]).tail(5).to_parquet(extra)
    with pytest.raises(
        ValueError,
        match=r"each series must be in one file, got shop='shop \d', product='product \d' in "
        r"'.*c.parquet' and '.*d.parquet'; ",
    ):
        ParquetShards.fit([*paths, extra], **SETTINGS, **configurations()["series"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "target_normalizer must be given, got 'auto', which needs the whole table; pass "),
        (
            {"target_normalizer": TorchNormalizer()},
            r"the normalizer of 'y' must be one that can be fitted to one file after the other, "
            r"got TorchNormalizer\(.*\); pass",
        ),
        (
            {"target_normalizer": GroupNormalizer(groups=["shop"])},
            r"the normalizer of 'y' must be .* by groups that are in one file each.",
        ),
        (
            {
                "target_normalizer": EncoderNormalizer(),
                "time_varying_known_reals": ["price"],
                "scalers": {"price": RobustScaler()},
            },
            r"the scaler of 'price' must be .*, got RobustScaler\(\); pass",
        ),
        (  # pytorch-forecasting takes the scale over all rows as an input
            {
                "target": ["y", "rain"],
                "target_normalizer": MultiNormalizer(
                    [GroupNormalizer(groups=GROUPS), EncoderNormalizer()]
                ),
                "add_target_scales": True,
            },
            r"with add_target_scales and several targets, the normalizer of 'rain' must be a "
            r"GroupNormalizer .*, got EncoderNormalizer\(.*\); pass one, or leave ",
        ),
    ],
)
def test_statistics_of_the_whole_table_are_rejected(
    paths: list[str], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"ParquetShards.fit: {message}"):
        ParquetShards.fit(paths, **(SETTINGS | settings))


def test_statistics_of_a_single_file_need_no_merging(tmp_path: Path) -> None:
    path = tmp_path / "all.parquet"
    make_table("").to_parquet(path)
    shards = ParquetShards.fit([path], **SETTINGS, target_normalizer=TorchNormalizer())
    whole = BatchedTimeSeriesDataSet(
        make_table(""), **SETTINGS, target_normalizer=TorchNormalizer()
    )
    assert shards.parameters["target_normalizer"].center_ == whole.target_normalizer.center_


def test_constant_column_has_the_scale_one(tmp_path: Path) -> None:
    """Where the means of two files are equal up to rounding."""
    table = make_table("").assign(price=0.1 + 0.2)
    shards = ParquetShards.fit(
        write(tmp_path, table),
        **SETTINGS,
        time_varying_known_reals=["price"],
        target_normalizer=EncoderNormalizer(),
    )
    assert shards.parameters["scalers"]["price"].scale_ == [1.0]


def break_table(table: pd.DataFrame, fault: str) -> pd.DataFrame:
    match fault:
        case "no target":
            return table.drop(columns="y")
        case "no group":
            return table.drop(columns="product")
        case "no rows":
            return table.head(0)
        case "short series":
            return table.sort_values("time").groupby(GROUPS).head(2)
        case "missing name":
            return table.assign(shop=table["shop"].where(table.index != table.index[0]))
        case "numbers as names":
            return table.assign(shop=7)
    raise ValueError(fault)


@pytest.mark.filterwarnings("ignore:Min encoder length and/or min_prediction_idx:UserWarning")
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no target", r"cannot use '.*d.parquet': .*no column 'y', its columns are 'shop', "),
        ("no group", r"cannot read '.*d.parquet': it has no column 'product', its columns are "),
        ("no rows", r"'.*d.parquet' must have rows, got none; leave the file out."),
        ("short series", r"cannot use '.*d.parquet': every series is too short for a window; "),
        ("missing name", r"'shop' must name the series of every row, got missing .* '.*d.parquet'"),
        ("numbers as names", r"'shop' must have one type in all files, got text in '.*a.parquet' "),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    shards: ParquetShards, paths: list[str], tmp_path: Path, fault: str, message: str
) -> None:
    broken = tmp_path / "d.parquet"
    break_table(pd.read_parquet(paths[1]), fault).to_parquet(broken)
    files = [paths[0], broken, paths[2]]
    with pytest.raises(ValueError, match=f"ParquetShards: {message}"):
        ParquetShards(files, shards[0])
    with pytest.raises(ValueError, match=f"ParquetShards: {message}"):
        ParquetShards.fit(files, **SETTINGS, **configurations()["series"])


def test_a_file_of_another_kind_is_named(shards: ParquetShards, tmp_path: Path) -> None:
    text = tmp_path / "d.parquet"
    text.write_text("shop,product")
    with pytest.raises(ValueError, match=r"ParquetShards: cannot read '.*d.parquet': "):
        ParquetShards([text], shards[0])


@pytest.mark.parametrize("rows", [5, 60])
def test_a_file_that_has_changed_is_named(
    shards: ParquetShards, paths: list[str], tmp_path: Path, rows: int
) -> None:
    shards.paths[0] = str(tmp_path / "a.parquet")
    table = pd.read_parquet(paths[0])
    first = table.sort_values("time").iloc[:1]
    later = [first.assign(time=first["time"] + step) for step in range(rows)]
    (pd.concat(later) if rows > len(table) else table.sort_values("time").head(-rows)).to_parquet(
        shards.paths[0]
    )
    with pytest.raises(ValueError, match=r"a.parquet' must have \d+ windows as .*, got \d+; make "):
        load(shards)


def test_new_series_need_encoders_that_allow_them(paths: list[str]) -> None:
    """Their names are those of groups of the normalizer, which the dataset has learned."""
    settings = {**SETTINGS, "target_normalizer": GroupNormalizer(groups=["product"])}
    table = pd.concat(map(pd.read_parquet, paths)).drop_duplicates(["shop", "time"])
    table = table.reset_index(drop=True).assign(product="another")
    with pytest.raises(
        ValueError,
        match=r"a.parquet': 'product' has the label 'product \d', which the dataset does not know; "
        r"make it with categorical_encoders=\{'product': NaNLabelEncoder\(add_nan=True\)\}, or ",
    ):
        ParquetShards(paths, BatchedTimeSeriesDataSet(table, **settings))
    settings["categorical_encoders"] = {"product": NaNLabelEncoder(add_nan=True, warn=False)}
    assert sum(ParquetShards(paths, BatchedTimeSeriesDataSet(table, **settings)).windows)


def test_saved_shards_are_found_from_another_folder(
    paths: list[str], shards: ParquetShards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(paths[0]).parent)
    ParquetShards([Path(path).name for path in paths], shards[0]).save(tmp_path / "shards.pt")
    monkeypatch.chdir(tmp_path)
    loaded = ParquetShards.load("shards.pt")
    assert loaded.paths == paths
    assert len(loaded[0])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("a.parquet", None), TypeError, "dataset must be a TimeSeriesDataSet, got NoneType; "),
        (("a.parquet", "dataset"), TypeError, "paths must be a sequence of files, got 'a.parquet'"),
        (([], "dataset"), ValueError, "paths must name at least one file, got none."),
    ],
)
def test_invalid_arguments_are_rejected(
    shards: ParquetShards, arguments: Any, error: type[Exception], message: str
) -> None:
    paths, dataset = arguments
    with pytest.raises(error, match=f"ParquetShards: {message}"):
        ParquetShards(paths, shards[0] if dataset else dataset)
    with pytest.raises(ValueError, match=r"ParquetShards.to_dataloader: batch_size must be at "):
        shards.to_dataloader(batch_size=0)


def test_missing_reader_of_parquet_is_named(
    shards: ParquetShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_statistics, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs pyarrow .* install .*\[parquet\]'"):
        shards[0]
