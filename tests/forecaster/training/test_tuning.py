"""The search looks at the validation part alone, and goes on after it was killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import forecasters
from helpers.forecasters import TINY, panel_of_values, rich_stores, tiny
from pytorch_forecasting_mlstm.forecaster import InputError
from pytorch_forecasting_mlstm.forecaster.training import fitting, tuning
from pytorch_forecasting_mlstm.forecaster.training.fitting import Settings
from pytorch_forecasting_mlstm.forecaster.training.recipe import Recipe

optuna = pytest.importorskip("optuna")


def fake_losses(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, float]]:
    """Replace trainings by a formula whose minimum is known; return what was tried."""
    tried = []

    def measure(panel: Any, settings: Settings, report: Any) -> float:
        loss = abs(np.log(settings.recipe.learning_rate / 0.01)) + settings.recipe.model["dropout"]
        tried.append((settings, loss))
        return loss

    monkeypatch.setattr(tuning, "measure_validation_loss", measure)
    return tried


def test_best_trial_is_set_and_the_first_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = fake_losses(monkeypatch)
    tuned = tiny(model_kwargs={"num_heads": 1}, history=None).tune(rich_stores(40), trials=25)
    first, best = tried[0], min(tried, key=lambda trial: trial[1])
    assert first[0].recipe.learning_rate == Recipe().learning_rate
    assert first[0].recipe.model == {
        "num_heads": 1,
        "hidden_size": 64,
        "num_layers": 1,
        "dropout": 0.1,
        "weight_decay": Recipe().weight_decay,
    }
    assert best[1] < first[1]
    assert tuned.history == best[0].history
    assert tuned.learning_rate == best[0].recipe.learning_rate
    assert tuned.model_kwargs == best[0].recipe.model
    assert len(tuned.study_.trials) == 25
    with pytest.raises(InputError, match="not fitted"):
        tuned.predict()


def test_given_settings_are_tried_first_and_a_given_history_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Even those outside of the usual limits."""
    tried = fake_losses(monkeypatch)
    given = {"hidden_size": 12, "num_heads": 3, "dropout": 0.7}
    tiny(model_kwargs=given, learning_rate=0.5, history=7).tune(rich_stores(40), trials=12)
    assert {settings.history for settings, _ in tried} == {7}
    recipe = tried[0][0].recipe
    assert recipe.learning_rate == 0.5
    assert {**recipe.model, **given} == recipe.model
    assert all(settings.recipe.model["hidden_size"] % 3 == 0 for settings, _ in tried)


def test_defaults_are_those_of_the_model() -> None:
    import inspect

    from pytorch_forecasting_mlstm import mLSTMTime

    parameters = inspect.signature(mLSTMTime.__init__).parameters
    for name, value in tuning._DEFAULTS.items():
        assert parameters[name].default == value


def test_search_does_not_read_what_comes_after_the_validation_part_begins_to_train(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Trainings of trials see the training part, and measure on the validation part."""
    seen = []
    train = fitting.train

    def observe(training: Any, validation: Any, *arguments: Any, **options: Any) -> Any:
        seen.append((int(training.data["time"].max()), int(validation.data["time"].max())))
        return train(training, validation, *arguments, **options)

    monkeypatch.setattr(fitting, "train", observe)
    tiny().tune(rich_stores(30), trials=1)
    assert seen == [(26, 29)]


def test_continued_search_keeps_a_history_that_is_given_later(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Trials of other histories do not win, though they are better, and do not count."""
    tried = fake_losses(monkeypatch)
    table, storage = rich_stores(40), tmp_path / "trials.log"
    tiny(history=None).tune(table, trials=12, storage=storage)
    searched = {settings.history for settings, _ in tried}
    assert len(searched) > 1
    assert 7 not in searched
    best, lowest = min(loss for _, loss in tried), len(tried)
    tuned = tiny(history=7, learning_rate=0.5).tune(table, trials=3, storage=storage)
    assert [settings.history for settings, _ in tried[lowest:]] == [7, 7, 7]
    assert tried[lowest][0].recipe.learning_rate == 0.5  # what is given comes first
    assert tuned.history == 7
    own = min(tried[lowest:], key=lambda trial: trial[1])
    assert own[1] > best
    assert tuned.learning_rate == own[0].recipe.learning_rate
    again = tiny(history=7).tune(table, trials=4, storage=storage)
    assert (again.history, len(tried)) == (7, lowest + 4)


def test_continued_search_looks_for_a_history_that_is_no_longer_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tried = fake_losses(monkeypatch)
    table, storage = rich_stores(40), tmp_path / "trials.log"
    tiny(history=7).tune(table, trials=2, storage=storage)
    tuned = tiny(history=None).tune(table, trials=12, storage=storage)
    assert len({settings.history for settings, _ in tried} - {7}) > 1
    best = min(tried, key=lambda trial: trial[1])[0]
    assert (tuned.history, tuned.learning_rate) == (best.history, best.recipe.learning_rate)


def test_history_that_a_search_has_set_is_searched_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Unless it is given, or the file is another one."""
    tried = fake_losses(monkeypatch)
    table, storage = rich_stores(40), tmp_path / "trials.log"
    tuned = tiny(history=None).tune(table, trials=2, storage=storage)
    tuned.tune(table, trials=14, storage=storage)
    assert len(tried) == len(tuned.study_.trials) == 14
    assert all("history" in trial.params for trial in tuned.study_.trials)
    history = tuned.history
    tuned.tune(table, trials=3)
    assert {settings.history for settings, _ in tried[14:]} == {history}
    given = tiny(history=9).tune(table, trials=2, storage=storage)
    given.tune(table, trials=4, storage=storage)
    assert {settings.history for settings, _ in tried[17:]} == {9}


def test_settings_that_are_given_later_are_tried_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Once, also those outside of the limits so far; another size of the network is refused."""
    tried = fake_losses(monkeypatch)
    table, storage = rich_stores(40), tmp_path / "trials.log"
    tiny().tune(table, trials=3, storage=storage)
    kwargs = {**TINY["model_kwargs"], "dropout": 0.7}
    for trials in (3, 5, 6):  # the first search has no trial left
        tiny(learning_rate=0.5, model_kwargs=kwargs).tune(table, trials=trials, storage=storage)
    given = [
        number
        for number, (settings, _) in enumerate(tried)
        if (settings.recipe.learning_rate, settings.recipe.model["dropout"]) == (0.5, 0.7)
    ]
    assert given == [3]
    assert len(tried) == 6
    with pytest.raises(InputError, match=r"storage '.*' holds trials of the sizes .* without the "):
        tiny(model_kwargs={**kwargs, "hidden_size": 12}).tune(table, storage=storage)


@pytest.mark.slow
def test_killed_search_goes_on(tmp_path: Path) -> None:
    """The killed trial is no result; the ones before it stay, and are not repeated."""
    storage = tmp_path / "trials.log"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, str(Path(forecasters.__file__).with_name("tuning.py")), str(storage)],
        env=environment,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        # An operation of the journal that ends a trial, and one that begins the next.
        if storage.exists() and storage.read_text().replace(" ", "").count('"state":1') >= 2:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    table = rich_stores(20)
    settings = tiny()._settings((0.1, 0.5, 0.9))
    panel = tiny()._reader.read(table).panel
    before = tuning._finished(tuning.open_study(panel, settings, storage), settings)
    assert before
    tuned = tiny().tune(table, trials=len(before) + 2, storage=storage)
    after = tuning._finished(tuned.study_, settings)
    assert len(after) == len(before) + 2
    assert [trial.params for trial in after[: len(before)]] == [trial.params for trial in before]
    assert len({str(trial.params) for trial in after}) == len(after)
    assert after[0].params["hidden_size"] == 4  # the settings that were given


def test_first_trial_that_was_killed_is_repeated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tried = fake_losses(monkeypatch)
    panel, storage = tiny()._reader.read(rich_stores(20)).panel, tmp_path / "trials.log"
    settings = tiny()._settings((0.5,))
    tuning.open_study(panel, settings, storage).ask()  # and never told
    study = tuning.open_study(panel, settings, storage)
    tuning.search(study, panel, settings, trials=2, minutes=None)
    assert tried[0][0].recipe.learning_rate == Recipe().learning_rate
    assert len(tried) == 2


def test_interrupted_search_sets_the_best_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = fake_losses(monkeypatch)
    measure = tuning.measure_validation_loss

    def interrupt(*arguments: Any) -> float:
        if len(tried) == 3:
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(tuning, "measure_validation_loss", interrupt)
    tuned = tiny()
    with pytest.raises(KeyboardInterrupt):
        tuned.tune(rich_stores(20))
    best = min(tried, key=lambda trial: trial[1])[0]
    assert tuned.learning_rate == best.recipe.learning_rate


def test_unusable_searches_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tried = fake_losses(monkeypatch)
    table, storage = rich_stores(20), tmp_path / "trials.log"
    tiny().tune(table, trials=1, storage=storage)
    for other, changed in (
        (tiny(), table.assign(sales=table["sales"] + 1)),
        (tiny(epochs=2), table),
    ):
        with pytest.raises(InputError, match="trials of another table or of other settings"):
            other.tune(changed, trials=2, storage=storage)
    (tmp_path / "text").write_text("text")
    for file in ("text", "no folder/trials.log"):
        with pytest.raises(InputError, match="storage '.*' cannot be used .*choose another file"):
            tiny().tune(table, storage=tmp_path / file)
    with pytest.raises(InputError, match="too short: add rows"):
        tiny(history=None).tune(rich_stores(6))
    for minutes in (0, -1, "1", float("nan")):
        with pytest.raises(InputError, match="minutes must be a positive number"):
            tiny().tune(table, minutes=minutes)
    with pytest.raises(InputError, match="trials must be a whole number"):
        tiny().tune(table, trials=0)
    assert len(tried) == 1
    monkeypatch.setattr(tuning, "measure_validation_loss", lambda *arguments: float("nan"))
    with pytest.raises(InputError, match="no trial has a finite loss"):
        tiny().tune(table, trials=2)
    monkeypatch.setattr(tuning, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install"):
        tiny().tune(table)


def test_log_of_optuna_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_losses(monkeypatch)
    before = optuna.logging.get_verbosity()
    tiny().tune(rich_stores(20), trials=1)
    assert optuna.logging.get_verbosity() == before


def test_trials_of_bad_settings_are_stopped_early(monkeypatch: pytest.MonkeyPatch) -> None:
    epochs = []

    def measure(panel: Any, settings: Settings, report: Any) -> float:
        loss = 1.0 if len(epochs) < 5 else 9.0
        epochs.append(0)
        for epoch in range(1, 11):
            epochs[-1] = epoch
            report("trial", fitting.EpochResult(epoch, 10, loss, loss, True, 0.0))
        return loss

    monkeypatch.setattr(tuning, "measure_validation_loss", measure)
    panel = panel_of_values(np.arange(30.0))
    settings = tiny()._settings((0.5,))
    study = tuning.open_study(panel, settings, None)
    tuning.search(study, panel, settings, trials=7, minutes=None)
    assert epochs[:5] == [10] * 5
    assert max(epochs[5:]) < 10
    assert tuning.best_choice(study, settings)
