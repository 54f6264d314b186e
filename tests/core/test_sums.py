"""Sums of outer products that are made strip by strip are those that one product makes."""

from __future__ import annotations

import pytest
import torch

from lrc_core.calibrate import sums

CPU = torch.device("cpu")


@pytest.mark.parametrize("strip", [1, 5, 12, 100])
@pytest.mark.parametrize("features", [1, 12, 23])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_batches_add_up(strip: int, features: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "_STRIP", strip)
    torch.manual_seed(0)
    batches = [torch.randn(tokens, features).to(dtype) for tokens in (7, 1, 30)]
    others = [torch.randn(len(batch), 9).to(dtype) for batch in batches]
    square, cross = sums.square_sum(features, CPU), torch.zeros(9, features, dtype=torch.float64)
    for rows, other in zip(batches, others, strict=True):
        sums.add_square(square, rows)
        sums.add_products(cross, other, rows)
    rows, other = torch.cat(batches).double(), torch.cat(others).double()
    torch.testing.assert_close(sums.mirror(square), rows.T @ rows, rtol=1e-5, atol=1e-4)
    assert torch.equal(square.triu(strip), square.tril(-strip).T)
    torch.testing.assert_close(cross, other.T @ rows, rtol=1e-5, atol=1e-4)
