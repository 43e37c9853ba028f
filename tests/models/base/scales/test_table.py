"""Lookups of series by the codes of their groups."""

import torch

from helpers.tolerances import assert_close
from pytorch_forecasting_mlstm.models.base.scales.table import ScaleTable, TypicalScales

GROUPS = torch.tensor([[2, 0], [0, 1], [1, 1], [0, 3]])
SCALES = torch.tensor([[1.0, 0.0], [2.0, 5.0], [0.0, 7.0], [4.0, 6.0]])


def test_series_are_found_by_all_of_their_groups() -> None:
    table = ScaleTable(TypicalScales(GROUPS, SCALES), targets=2)
    wanted = torch.tensor([[0, 3], [1, 1], [0, 0], [2, 0], [2, 1], [3, 0], [9, 9], [0, 1], [0, 4]])
    known = torch.tensor([1, 1, 0, 1, 0, 0, 0, 1, 0], dtype=torch.bool)
    first = torch.tensor([4.0, 0, 0, 1, 0, 0, 0, 2, 0])
    second = torch.tensor([6.0, 7, 0, 0, 0, 0, 0, 5, 0])
    for reference, scales in zip(table(wanted), (first, second), strict=True):
        assert torch.equal(reference.known[:, 0], known)
        assert torch.equal(reference.series[:, 0], scales)


def test_median_and_smallest_are_those_of_series_that_vary() -> None:
    first, second = ScaleTable(TypicalScales(GROUPS, SCALES), targets=2)(GROUPS)
    assert (first.median.item(), first.smallest.item()) == (2, 1)
    assert (second.median.item(), second.smallest.item()) == (6, 5)


def test_scales_of_constant_series_alone_are_one() -> None:
    (reference,) = ScaleTable(TypicalScales(GROUPS, torch.zeros(4, 1)), targets=1)(GROUPS)
    assert (reference.median.item(), reference.smallest.item()) == (1, 1)
    assert reference.known.all()


def test_without_scales_every_series_is_unknown() -> None:
    references = ScaleTable(None, targets=2)(GROUPS)
    assert len(references) == 2
    for reference in references:
        assert not reference.known.any()
        assert not reference.series.any()


def test_table_follows_the_precision_of_the_model_and_adds_no_weights() -> None:
    table = ScaleTable(TypicalScales(GROUPS, SCALES), targets=2).double()
    assert_close(table(GROUPS)[0].series[:, 0], SCALES[:, 0].double())
    assert not table.state_dict()


def test_replaced_scales_take_effect() -> None:
    table = ScaleTable(TypicalScales(GROUPS, SCALES), targets=2)
    table.replace(TypicalScales(GROUPS[:1], 3 * SCALES[:1]))
    reference = table(GROUPS)[0]
    assert reference.series[:, 0].tolist() == [3, 0, 0, 0]
    assert reference.known[:, 0].tolist() == [True, False, False, False]
