"""The network without its model: independent of pytorch-forecasting, exported, and in threads."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grimp
import pytest
import torch
from pytorch_forecasting.utils import to_list

from helpers.datasets import CONFIGURATIONS, collate, configured, pick_samples
from helpers.models import shared_model
from helpers.products import alternate
from helpers.tolerances import assert_close, assert_identical
from pytorch_forecasting_mlstm.models.mlstm_time.adapter import network_inputs

MIXED = "mixed targets and covariates"


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    return grimp.build_graph(
        "pytorch_forecasting_mlstm", include_external_packages=True, cache_dir=None
    )


@pytest.mark.parametrize("module", ["_network", "submodules", "targets", "instance_norm"])
def test_network_imports_no_forecasting_framework(imports: grimp.ImportGraph, module: str) -> None:
    """Neither directly nor through other modules of the package."""
    name = f"pytorch_forecasting_mlstm.models.mlstm_time.{module}"
    frameworks = {"lightning", "pandas", "pytorch_forecasting", "sklearn", "torchmetrics"}
    assert not imports.find_upstream_modules(name) & frameworks
    assert imports.find_upstream_modules(name.replace(module, "adapter")) & frameworks


@alternate("name", CONFIGURATIONS)
def test_model_rescales_the_forecast_of_the_network(name: str) -> None:
    model = shared_model(name)
    x, _ = collate(pick_samples(configured(name)))
    with torch.no_grad():
        forecasts = model.network(network_inputs(x, model.reference_scales(x)))
        outputs, scales = zip(*forecasts, strict=True)
        is_list = isinstance(configured(name).target, list)
        rescaled = (
            model.transform_output(list(outputs), list(scales))
            if is_list
            else model.transform_output(outputs[0], scales[0])
        )
        expected = model(x).prediction
    assert_identical(tuple(to_list(rescaled)), tuple(to_list(expected)))


@pytest.mark.parametrize("name", ["known real", pytest.param(MIXED, marks=pytest.mark.slow)])
def test_network_is_exported(name: str) -> None:
    model = shared_model(name, num_layers=1)
    network = model.network
    batches = [collate(pick_samples(configured(name), count)[:5])[0] for count in (5, 12)]
    first, second = (network_inputs(x, model.reference_scales(x)) for x in batches)
    with torch.no_grad():
        exported = torch.export.export(network, (first,), strict=False).module()
        for inputs in (first, second):
            assert_close(tuple(exported(inputs)), tuple(network(inputs)))


def test_network_runs_in_threads() -> None:
    model = shared_model(MIXED)
    network = model.network
    samples = pick_samples(configured(MIXED), 12)
    collated = [collate(samples[start:])[0] for start in range(8)]
    batches = [network_inputs(x, model.reference_scales(x)) for x in collated]

    def forecast(inputs: Any) -> Any:
        with torch.no_grad():  # this setting is per thread
            return network(inputs)

    with ThreadPoolExecutor(4) as pool:
        for result, inputs in zip(pool.map(forecast, batches), batches, strict=True):
            assert_identical(tuple(result), tuple(forecast(inputs)))
