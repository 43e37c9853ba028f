"""A saved forecaster forecasts the same elsewhere, and its file runs no code."""

import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from lightning import pytorch as pl_lightning
from sklearn.base import clone

from helpers.forecasters import make_plan, rich_stores, tiny
from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm.forecaster import Forecaster, InputError


@pytest.fixture(scope="module")
def saved(rich: Forecaster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("saved") / "forecaster.ckpt"
    rich.save(file)
    return file


def test_loaded_forecaster_is_equal(rich: Forecaster, saved: Path) -> None:
    plan = make_plan(rich_stores())
    loaded = Forecaster.load(saved)
    forecast = rich.predict(future=plan)
    pd.testing.assert_frame_equal(loaded.predict(future=plan), forecast, check_exact=True)
    assert loaded.get_params() == rich.get_params()
    assert (loaded.history_, loaded.epochs_) == (rich.history_, rich.epochs_)
    newer = pd.concat([rich_stores(35), rich_stores(9, ("new",))])
    newer_plan = make_plan(newer)
    pd.testing.assert_frame_equal(
        loaded.predict(newer, newer_plan), rich.predict(newer, newer_plan), check_exact=True
    )
    updated = [f.update(rich_stores(33), epochs=1) for f in (loaded, clone_of(saved))]
    plan = make_plan(rich_stores(33))
    pd.testing.assert_frame_equal(*(f.predict(future=plan) for f in updated), check_exact=True)


def clone_of(file: Path) -> Forecaster:
    return Forecaster.load(str(file))


@pytest.mark.slow
def test_loaded_forecaster_is_equal_in_a_new_process(rich: Forecaster, saved: Path) -> None:
    code = (
        "import sys; from pytorch_forecasting_mlstm.forecaster import Forecaster; import pandas\n"
        "plan = pandas.read_pickle(sys.argv[2])\n"
        "Forecaster.load(sys.argv[1]).predict(future=plan).to_pickle(sys.argv[3])"
    )
    plan = make_plan(rich_stores())
    files = [saved, saved.parent / "plan.pickle", saved.parent / "forecast.pickle"]
    plan.to_pickle(files[1])
    subprocess.run([sys.executable, "-c", code, *map(str, files)], check=True)
    pd.testing.assert_frame_equal(
        pd.read_pickle(files[2]), rich.predict(future=plan), check_exact=True
    )


def test_file_is_a_checkpoint_of_the_model_and_plain_data(rich: Forecaster, saved: Path) -> None:
    torch.load(saved, weights_only=True)
    model = mLSTMTime.load_from_checkpoint(saved)
    for name, weights in rich.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], weights), name


class Exploit:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_code_in_a_file_is_refused(saved: Path, tmp_path: Path) -> None:
    """In the archive, in a pickle alone, and in an entry of the checkpoint."""
    touched, file = tmp_path / "touched", tmp_path / "file.ckpt"
    content = torch.load(saved, weights_only=True)
    for crafted in (
        {**content, "forecaster": Exploit(touched)},
        {**content, "x": Exploit(touched)},
    ):
        torch.save(crafted, file)
        with pytest.raises(InputError, match="file.ckpt"):
            Forecaster.load(file)
    file.write_bytes(pickle.dumps(Exploit(touched)))
    with pytest.raises(InputError, match="file.ckpt"):
        Forecaster.load(file)
    assert not touched.exists()


def test_damaged_files_are_refused_in_one_sentence(saved: Path, tmp_path: Path) -> None:
    whole, file = saved.read_bytes(), tmp_path / "file.ckpt"
    rng = np.random.default_rng(0)
    contents = [whole[: int(len(whole) * share)] for share in (0, 0.01, 0.5, 0.9, 0.999)]
    for _ in range(10):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 50):
            damaged[place] ^= 255
        contents.append(bytes(damaged))
    for content in contents:
        file.write_bytes(content)
        with pytest.raises(InputError) as error:
            Forecaster.load(file)
        assert "file.ckpt" in str(error.value) and "\n" not in str(error.value)


def test_other_files_are_refused(rich: Forecaster, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file '.*nothing.ckpt'"):
        Forecaster.load(tmp_path / "nothing.ckpt")
    with pytest.raises(InputError, match="no file"):
        Forecaster.load(tmp_path)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(InputError, match="a.zip"):
        Forecaster.load(tmp_path / "a.zip")
    (tmp_path / "a.csv").write_text("date,sales\n")
    with pytest.raises(InputError, match="of another format: load another file$"):
        Forecaster.load(tmp_path / "a.csv")
    with pytest.raises(InputError, match="path must be the path of a file, got 5"):
        Forecaster.load(5)
    with pytest.raises(InputError, match="cannot write"):
        rich.save(tmp_path / "no folder" / "a.ckpt")
    with pytest.raises(InputError, match=r"Forecaster\.save: the forecaster is not fitted"):
        tiny().save(tmp_path / "a.ckpt")


def test_awkward_parameters_survive_or_are_named(tmp_path: Path) -> None:
    """Of a polars table with several groups and targets, saved after a run with callbacks."""
    table = rich_stores(16).assign(shop=lambda t: t["store"].astype("category"))
    table["store"] = (table["store"] == "a").astype(bool)
    frame = pl.from_pandas(table)
    forecaster = tiny(
        horizon=np.int64(2),
        target=["sales", "returns"],
        group=("store", "shop"),
        quantiles=np.array([0.2, 0.8]),
        missing=np.float64(0),
        minimum=-5,
        frequency=pd.offsets.Day(),
        trainer_kwargs={"callbacks": [pl_lightning.Callback()], "limit_train_batches": 1},
    ).fit(frame)
    with pytest.warns(UserWarning, match="without .*trainer_kwargs, which cannot be stored"):
        forecaster.save(tmp_path / "a.ckpt")
    loaded = Forecaster.load(tmp_path / "a.ckpt")
    assert isinstance(loaded.predict(), pl.DataFrame)
    assert loaded.predict().equals(forecaster.predict())
    assert loaded.predict().schema == forecaster.predict().schema
    assert loaded.trainer_kwargs is None
    assert clone(loaded).get_params()["group"] == ("store", "shop")
    loaded.save(tmp_path / "b.ckpt")
    assert Forecaster.load(tmp_path / "b.ckpt").predict().equals(loaded.predict())


def test_groups_of_all_kinds_survive(tmp_path: Path) -> None:
    table = rich_stores(14, (0, 1))
    kinds = {
        "stamps": pd.to_datetime(["2024-01-01", "2024-01-02"]),
        "floats": [0.5, 1.5],
        "mixed": ["a", 1],
        "nullable": pd.array([1, 2], dtype="Int32"),
    }
    for name, values in kinds.items():
        table[name] = pd.Series(values).take(table["store"]).to_numpy()
    forecaster = tiny(group=list(kinds)).fit(table)
    forecaster.save(tmp_path / "a.ckpt")
    loaded = Forecaster.load(tmp_path / "a.ckpt")
    pd.testing.assert_frame_equal(loaded.predict(), forecaster.predict(), check_exact=True)
    pd.testing.assert_frame_equal(loaded.predict(table), forecaster.predict(), check_exact=True)


def test_full_disk_is_named_and_leaves_the_old_file(
    rich: Forecaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch hides the error of the file system behind one of its own."""
    path = tmp_path / "forecaster.ckpt"
    path.write_bytes(b"old")
    write = torch.save

    def fail(content: Any, file: Any) -> None:
        if "forecaster" not in content:
            return write(content, file)
        try:
            raise OSError(28, "No space left on device")
        except OSError:
            raise RuntimeError("basic_ios::clear: iostream error")  # noqa: B904 (torch)

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(InputError, match=r"cannot write '.*forecaster\.ckpt': No space left"):
        rich.save(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
