"""Sums of outer products that are made strip by strip are those that one product makes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


@pytest.mark.parametrize("few", [1, 7, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_absolute_values_add_up_and_leave_the_inputs_alone(
    few: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sums, "_FEW", few)
    torch.manual_seed(0)
    rows = torch.randn(30, 5).to(dtype)
    before, total = rows.clone(), torch.ones(5, dtype=torch.float64)
    sums.add_absolute(total, rows)
    torch.testing.assert_close(total, 1 + rows.double().abs().sum(0), rtol=1e-6, atol=1e-6)
    assert torch.equal(rows, before)


_UNDER_A_LIMIT = """
import resource
from pathlib import Path

import torch

from lrc_core.calibrate.sums import add_square, mirror, square_sum
from lrc_core.decompose.factorise import _root, is_finite_matrix

def limited(beside):
    data = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData"))
    limit = int(data.split()[1]) * 1024 + int(beside)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))

torch.set_num_threads(1)
width, rows = 3072, torch.randn(64, 3072)  # so few rows that the moment has to be damped, again and again
bytes_of_sum = 8 * width**2
for again in range(2):  # what the first time brings along is no part of it
    total = square_sum(width, rows.device)
    add_square(total, rows)
    assert is_finite_matrix(mirror(total))
    moment = total.float()
    root, added = _root(moment, "inputs", 0.0, 1e-9)
    assert added > 0
    if not again:
        del total, moment, root
        limited(TIMES * bytes_of_sum)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the limit is Linux's")
def test_a_wide_layer_needs_its_sum_its_moment_and_its_root_and_little_beside_them() -> None:
    """A sum and a root of float64, and a moment of float32: 2.5 times a sum, where copies on the way would need 5."""

    def ran(times: float) -> subprocess.CompletedProcess[str]:
        code = _UNDER_A_LIMIT.replace("TIMES", str(times))
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (enough := ran(3.6)).returncode == 0, enough.stderr
    assert "allocate memory" in ran(2.0).stderr
