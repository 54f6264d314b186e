"""Headers of safetensors files that contradict themselves are refused, at once and in our own words."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from lrc_core.errors import ModelError
from lrc_core.models.headers import safetensors_header


def entry(shape: Any = (2,), offsets: Any = (0, 8), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def written(path: Path, header: str | dict[str, Any], data: int = 8, length: int | None = None) -> Path:
    raw = (header if isinstance(header, str) else json.dumps(header)).encode()
    path.write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + b"\0" * data)
    return path


HEADERS: dict[str, Any] = {
    "infinite": {"t": entry(shape=[float("inf")])},
    "nan": {"t": entry(offsets=[0, float("nan")])},
    "fractions": {"t": entry(shape=[2.0])},
    "true": {"t": entry(shape=[True, 2])},
    "negative shape": {"t": entry(shape=[-2])},
    "negative offsets": {"t": entry(offsets=[-8, 0])},
    "backwards": {"t": entry(offsets=[8, 0])},
    "beyond 63 bits": {"t": entry(shape=[2**64], offsets=[0, 2**66])},
    "overlapping": {"t": entry(), "u": entry(offsets=[4, 12])},
    "the same place twice": {"t": entry(), "u": entry()},
    "a hole": {"t": entry(), "u": entry(offsets=[16, 24])},
    "not from the start": {"t": entry(offsets=[8, 16])},
    "another size": {"t": entry(shape=[3])},
    "an unknown type": {"t": entry(dtype="F32X")},
    "a type that is no text": {"t": entry(dtype=[])},
    "many dimensions": {"t": entry(shape=[1] * 100 + [2])},
    "no table": {"t": 5},
    "nothing": {"t": {}},
    "a name that is empty": {"": entry()},
    "a long name": {"n" * 5000: entry()},
    "a name of two lines": {"a\nb": entry()},
    "a name twice": '{"t": {"dtype":"F32","shape":[2],"data_offsets":[0,8]}, "t": {"dtype":"F32","shape":[2],'
    '"data_offsets":[0,8]}}',
    "depth": '{"t":' * 100_000,
    "a list": "[]",
    "digits": '{"t": {"dtype":"F32","shape":[' + "9" * 10_000 + '],"data_offsets":[0,8]}}',
    "many": {f"t{number}": entry(shape=[0], offsets=[0, 0]) for number in range(100_001)},
}


@pytest.mark.parametrize("kind", HEADERS)
def test_impossible_headers(kind: str, tmp_path: Path) -> None:
    path = written(tmp_path / "m.safetensors", HEADERS[kind])
    began = time.process_time()
    with pytest.raises(ModelError, match=r"m\.safetensors"):
        safetensors_header(path)
    assert time.process_time() - began < 10


@pytest.mark.parametrize("length", [0, 5, 2**31, 2**63, 2**64 - 1])
def test_impossible_lengths(length: int, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"m\.safetensors"):
        safetensors_header(written(tmp_path / "m.safetensors", {"t": entry()}, length=length))


def test_a_header_is_never_huge(tmp_path: Path) -> None:
    began = time.process_time()
    with pytest.raises(ModelError, match="larger"):
        safetensors_header(written(tmp_path / "m.safetensors", {"t": entry(), "__metadata__": {"a": "x" * 30_000_000}}))
    assert time.process_time() - began < 10


def test_a_header_as_it_should_be(tmp_path: Path) -> None:
    header = {"__metadata__": {"format": "pt"}, "u": entry(offsets=[8, 16]), "t": entry(), "e": entry([0, 3], [8, 8])}
    found = {tensor.name: tensor for tensor in safetensors_header(written(tmp_path / "m.safetensors", header, 16))}
    assert (found["t"].shape, found["t"].bytes, found["u"].start - found["t"].start) == ((2,), 8, 8)
