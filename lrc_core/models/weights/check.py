"""Asking whether a model's files and configuration belong together, from a process that may not have torch.

The answer needs transformers' classes, which take seconds to import: it is computed here where they are loaded already,
by another process elsewhere, and kept in the cache.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lrc_core.errors import LrcError, ModelError
from lrc_core.files import write_json
from lrc_core.models.headers import TensorHeader
from lrc_core.paths import cache_home, child_environment

_VERSION = 1
_PATIENCE_S = 120
_NOTHING: Mapping[str, Any] = {"notes": []}


def folder_notes(folder: Path, tensors: Sequence[TensorHeader], *, pickled: bool = False) -> tuple[str, ...]:
    """What is left out of the weights and why; see :func:`lrc_core.models.weights.fit.require_matching_files`.

    The model's own code is not run: one that needs it is looked at when it is loaded.

    Raises:
        ModelError: files and configuration do not belong together.
    """
    facts = [(tensor.name, tensor.shape, tensor.dtype, tensor.start) for tensor in tensors]
    question = {"kind": "pickle" if pickled else "folder", "path": str(folder), "tensors": facts, "trust": False}
    return _answer(question, [folder / "config.json", *folder.glob("*.safetensors"), *folder.glob("*.bin")])


def gguf_notes(path: Path, parts: Sequence[Path]) -> tuple[str, ...]:
    """The same for a GGUF file and its parts."""
    return _answer({"kind": "gguf", "path": str(path)}, parts)


def _answer(question: Mapping[str, Any], files: Sequence[Path]) -> tuple[str, ...]:
    if {"torch", "transformers"} <= set(sys.modules):
        from lrc_core.models.weights.fit import ask

        found: Mapping[str, Any] = ask(question)
    else:
        found = _remembered(question, files)
    if "message" in found:
        raise ModelError(str(found["message"]), str(found["remedy"]))
    return tuple(found["notes"])


def _remembered(question: Mapping[str, Any], files: Sequence[Path]) -> Mapping[str, Any]:
    stamps = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(files)]
    key = json.dumps([_VERSION, version("transformers"), question, stamps])
    path = cache_home() / "fits" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content["notes"], list):
            return {"notes": [str(note) for note in content["notes"]]}
    found = _asked(question)
    if "message" not in found:  # a refusal is looked for anew: its cause may be mended outside of these files
        with suppress(OSError, LrcError):  # only a question of time
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, found)
    return found


def _asked(question: Mapping[str, Any]) -> Mapping[str, Any]:
    """The answer of another process; nothing where it gives none, as the job that loads the model will ask again."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "lrc_core.models.weights.fit"],
            input=json.dumps(question),
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            env=child_environment({"HF_HUB_OFFLINE": "1"}),
            check=True,
        )
        answer = json.loads(done.stdout)
        if isinstance(answer, dict) and answer.keys() & {"message", "notes"}:
            return answer
    except (OSError, subprocess.SubprocessError, ValueError):
        pass
    return _NOTHING
