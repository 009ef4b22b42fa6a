"""Random numbers that belong to a sample: the same whoever computes it, and what one process always drew."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from videomae.engine.sample_draws import drop_path, dropout, rows_of_batch

B = 12


@pytest.mark.parametrize("function", ["drop_path", "dropout"])
def test_rows_of_a_batch_get_the_numbers_that_the_whole_batch_would(function: str) -> None:
    features = torch.randn(B, 5, 3) if function == "drop_path" else torch.randn(B, 7)

    def dropped(rows: torch.Tensor) -> torch.Tensor:
        return drop_path(rows, 0.5) if function == "drop_path" else dropout(rows, 0.5, True)

    torch.manual_seed(3)
    whole = [dropped(features), dropped(features)]  # of two layers
    assert not torch.equal(whole[0], whole[1])
    for places in (torch.tensor([0, 11, 4]), torch.tensor([7]), torch.arange(B)):
        torch.manual_seed(3)
        with rows_of_batch(places, batch_size=B):
            parts = [dropped(features[places]), dropped(features[places])]
        for part, all_rows in zip(parts, whole, strict=True):
            assert torch.equal(part, all_rows[places])


def test_a_whole_batch_draws_what_torch_draws() -> None:
    features = torch.randn(B, 7)
    torch.manual_seed(5)
    expected = F.dropout(features, 0.3)
    torch.manual_seed(5)
    assert torch.equal(dropout(features, 0.3, True), expected)
    assert torch.equal(dropout(features, 0.3, False), features)


def test_the_rows_count_in_the_block_alone() -> None:
    with rows_of_batch(torch.tensor([1]), batch_size=2), rows_of_batch(torch.tensor([0, 1, 2]), batch_size=4):
        assert drop_path(torch.ones(3, 1, 1), 0.5).shape == (3, 1, 1)
    assert drop_path(torch.ones(B, 1, 1), 0.5).shape == (B, 1, 1)
