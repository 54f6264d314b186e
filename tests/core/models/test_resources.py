"""What memory is left, and a stage's own peak of it, which the peak of the process before it must not hide."""

from __future__ import annotations

import platform
import subprocess
import sys

import numpy as np
import pytest

from lrc_core.models.allocator import keep_freed_memory
from lrc_core.models.resources import CPU_BF16, cpu_has_bf16, own_peak_memory, peak_memory_bytes

MIB = 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can forget a peak")
@pytest.mark.parametrize("kept", [False, True])
def test_a_stage_has_its_own_peak_and_the_process_keeps_its(kept: bool) -> None:
    if kept:  # what was freed stays with the process, and must not count as the stage's
        assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
    with own_peak_memory() as outer:
        large = np.ones(300 * MIB, dtype=np.uint8)
        high = outer()
        del large
        with own_peak_memory() as inner:
            small = np.ones(20 * MIB, dtype=np.uint8)
            low = inner()
            del small
        assert low < high - 150 * MIB
        assert outer() > high - 8 * MIB  # the kernel counts pages in batches
    assert peak_memory_bytes() > high - 8 * MIB


def test_bfloat16_of_a_processor_can_be_left_unused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrc_core.models.resources.Path.read_text", lambda *_, **__: "flags : fpu avx512_bf16\n")
    found = {}
    for said in ("0", ""):
        monkeypatch.setenv(CPU_BF16, said)
        cpu_has_bf16.cache_clear()
        found[said] = cpu_has_bf16()
    cpu_has_bf16.cache_clear()
    assert found == {"0": False, "": True}


_LIMITED = """
import resource
from lrc_core.models.resources import _kernel_bytes, cpu_memory_available

limit, name = resource.LIMIT, "NAME"
before = cpu_memory_available()
resource.setrlimit(limit, (_kernel_bytes(name) + 50_000_000, resource.RLIM_INFINITY))
left = cpu_memory_available()
assert 0 < left <= 50_000_000 < before, (left, before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what counts against a limit")
@pytest.mark.parametrize(("limit", "name"), [("RLIMIT_AS", "VmSize"), ("RLIMIT_DATA", "VmData")])
def test_a_limit_of_the_process_is_a_limit_of_memory(limit: str, name: str) -> None:
    code = _LIMITED.replace("resource.LIMIT", f"resource.{limit}").replace("NAME", name)
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
