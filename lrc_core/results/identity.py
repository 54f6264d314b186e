"""What a run is computed from, by content: part of its key, and told where the things on disk are no longer that.

Names (of a folder, a file, a method) say where something is, not what it is. When a job is submitted, its spec is
given a digest of everything that a name stands for; so an overwritten model, an edited text or a new version of the
code is another question with a run of its own, and the same bytes are the same question wherever their times differ.
No torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import lrc_core.allocate
import lrc_core.decompose  # noqa: F401 - both register their methods, whose versions count
from lrc_core.digests import digest_of, file_digest
from lrc_core.errors import LrcError, RunError
from lrc_core.models.content import COMMIT, model_content
from lrc_core.plan import PAIR
from lrc_core.registry import ALLOCATORS, DECOMPOSITIONS, MethodEntry, Registry
from lrc_core.runs.spec import (
    GENERATED,
    AblationSpec,
    AllocateSpec,
    CompareSpec,
    EvaluateSpec,
    FetchSpec,
    ModelRef,
    QualitySpec,
    Spec,
    SpectraSpec,
    UpdateSpec,
)
from lrc_core.runs.store import Run, RunStore
from lrc_core.texts.documents import BUILT_IN, is_data_set
from lrc_core.texts.files import is_file, split_field

S = TypeVar("S", bound=Spec)
_CODE, _MODEL, _TEXT, _TASKS, _PLAN, _FOLDER = "code", "model", "text", "tasks", "plan files", "folder"
_DATA_SET = "official splits"
"""How data sets on the hub are read: their content is not known before they are loaded."""
_UNREAD, _GONE = "cannot be read any more", "is gone"
_FIRST = "1"
"""Version of code that is not mentioned."""


def identified(spec: S) -> S:
    """The spec with the contents of everything it names, as they are now.

    What cannot be read has none: the check of the spec refuses it in words of its own.
    """
    found = {}
    for thing, look in _things(spec).items():
        with suppress(LrcError, OSError):
            found[thing] = look()
    return _with(spec, found)


def part_of(spec: S, contents: Mapping[str, str]) -> S:
    """A part of a job with the contents that the job was asked for, whatever has become of them meanwhile.

    Versions of code are those of the part: a bench of two storage laws may hold two of one method.
    """
    code = f"{_CODE} "
    found = {
        thing: look() if thing.startswith(code) else contents.get(thing, "") for thing, look in _things(spec).items()
    }
    return _with(spec, found)


def as_asked_before(spec: S, store: RunStore) -> S:
    """The spec of a run of the same question that was asked before its hub model was on this computer, if there is one.

    Its commit was not known then; the run's card says which one was downloaded.
    """
    key = model_key(spec.model)
    commit = dict(spec.contents).get(key, "")
    earlier = replace(spec, contents=tuple(pair for pair in spec.contents if pair[0] != key))
    run = Run(store.root / earlier.run_id)
    if len(commit) != COMMIT or not (run.path / "spec.json").exists():
        return spec
    with suppress(LrcError, OSError, ValueError, KeyError, TypeError):
        card = run.path / "card.json"
        if not card.exists() and not run.status().final:
            return earlier
        if json.loads(card.read_text(encoding="utf-8"))["identity"]["revision"] == commit:
            return earlier
    return spec


def differs_from_plan(origin: Any, spec: Spec) -> list[str]:
    """What the user should know of a plan whose ranks were chosen on texts that have been edited since."""
    before, now = (origin or {}).get("contents") or {}, dict(spec.contents)
    return [
        f"The plan was made when the {thing} was another one: its ranks are of that, its factors of what is there now."
        for thing, digest in sorted(before.items())
        if thing.startswith(_TEXT) and thing in now and now[thing] != digest
    ]


def changed(spec: Spec, looked: dict[str, str | None] | None = None) -> tuple[str, ...]:
    """Things that are no longer what they were when the run was asked for, in words; () also where it is not recorded.

    Costs a look at each file's stamp; only files that were written since are read.

    Args:
        looked: what was found for other runs a moment ago, by thing, so that many runs cost one look.
    """
    return tuple(_differences(spec, {} if looked is None else looked))


def what_to_do(found: Sequence[str]) -> str:
    """The remedy for what :func:`changed` tells: nothing can be computed of what is not there."""
    if any(one.endswith((_UNREAD, _GONE)) for one in found):
        return "What was computed stays. To go on, put it back under that name, or choose it where it lies now."
    return "Start it again to have a run of what is there now."


def measured_contents(spec: Spec) -> tuple[tuple[str, str], ...]:
    """Contents that rows of one table have in common: the model, what it is measured on, and the code that measures."""
    texts = {text_key(name) for name in _measured_texts(spec)}
    measuring = texts | {model_key(spec.model), f"{_CODE} {EvaluateSpec.kind}"}
    return tuple((thing, digest) for thing, digest in spec.contents if thing in measuring or thing.startswith(_TASKS))


@contextmanager
def unchanged(spec: Spec) -> Iterator[None]:
    """Refuse to work, or to have worked, on anything else than was asked for.

    Raises:
        RunError: a model, text or file was changed between the question and the end of the block.
    """
    _require(spec)
    yield
    _require(spec)


def model_key(ref: ModelRef) -> str:
    """Under which thing the content of a model stands."""
    return f"{_MODEL} {ref.source}"


def text_key(name: str) -> str:
    """Under which thing the content of a text stands."""
    return f"{_TEXT} {name}"


def text_content(name: str) -> str:
    """Digest of a text's file; of a data set on the hub what is done with it; "" for built-in texts."""
    if name in (*BUILT_IN, GENERATED):
        return ""
    return file_digest(split_field(name)[0]) if is_file(name) else _DATA_SET if is_data_set(name) else ""


def named_texts(spec: Spec) -> tuple[str, ...]:
    """Every text that a spec names, each once."""
    return tuple(dict.fromkeys((*_calibration_texts(spec), *_measured_texts(spec))))


def in_words(spec: Spec) -> list[tuple[str, str]]:
    """What the run was computed from: pairs of a thing and the beginning of its digest or its version."""
    return [(thing, digest[:12]) for thing, digest in spec.contents]


def _require(spec: Spec) -> None:
    if found := changed(spec):
        raise RunError(
            f"What the run was asked for has changed: {'; '.join(found)}.",
            "Give the same command again: what is there now has a run of its own.",
        )


def _differences(spec: Spec, looked: dict[str, str | None]) -> Iterator[str]:
    recorded = dict(spec.contents)
    for thing, look in _things(spec).items():
        kind, _, name = thing.partition(" ")
        before = recorded.get(thing, _FIRST if kind == _CODE else "")
        if not before:
            continue
        if kind == _CODE:  # of one method there may be several versions, by how layers are stored
            now: str | None = look()
        else:
            if thing not in looked:
                looked[thing] = None
                with suppress(LrcError, OSError):
                    looked[thing] = look()
            now = looked[thing]
        if now is None:
            yield f"the {thing} {_UNREAD}"
        elif kind == _CODE and (now or _FIRST) != before:
            yield f"the program computes {name} otherwise (version {now or _FIRST}, then {before})"
        elif kind != _CODE and now != before:
            yield f"the {thing} has changed" if now else f"the {thing} {_GONE}"


def _with(spec: S, contents: Mapping[str, str]) -> S:
    return replace(spec, contents=tuple(sorted((thing, digest) for thing, digest in contents.items() if digest)))


def _things(spec: Spec) -> dict[str, Callable[[], str]]:
    """What a spec names, and how its content is found."""
    if isinstance(spec, FetchSpec):  # it brings the content
        return {}
    found: dict[str, Callable[[], str]] = {}
    for ref in (spec.model, *(ModelRef(name) for name in getattr(spec, "references", ()))):
        found[model_key(ref)] = partial(model_content, ref)
    for name in (*_calibration_texts(spec), *_measured_texts(spec)):
        found[text_key(name)] = partial(text_content, name)
    if folder := getattr(getattr(spec, "evaluation", None), "include_path", ""):
        found[f"{_TASKS} {folder}"] = partial(_folder_content, Path(folder))
    if folder := getattr(spec, "folder", ""):
        found[f"{_FOLDER} {folder}"] = partial(_folder_content, Path(folder))
    for holder in getattr(spec, "answers", None) or [spec]:
        if files := _plan_files(holder):
            found[f"{_PLAN} {holder.plan_folder}"] = partial(_files_content, files)
    return found | {f"{_CODE} {name}": partial(_version, version) for name, version in _code(spec).items()}


def _calibration_texts(spec: Spec) -> Iterator[str]:
    """Texts that second moments, probes or training read, and that an evaluation must not report on."""
    if isinstance(spec, SpectraSpec) and spec.stream:
        return
    for holder in getattr(spec, "answers", None) or [spec]:
        if hasattr(holder, "calibration"):
            yield from holder.calibration.texts
    yield from getattr(spec, "texts", ())


def _measured_texts(spec: Spec) -> Sequence[str]:
    evaluation = getattr(spec, "evaluation", None)
    return () if evaluation is None else evaluation.texts


def _plan_files(holder: Any) -> list[Path]:
    """Files of a plan that lie outside of the runs: a run's own are named by a hash of what they come from."""
    folder = Path(getattr(holder, "plan_folder", ""))
    plan = getattr(holder, "plan", None) or {}
    names = [plan.get(key) for key in ("weights_file", "structure_file")]
    return [folder / str(name) for name in names if name] if folder.is_absolute() else []


def _files_content(files: Sequence[Path]) -> str:
    return digest_of(map(file_digest, files))


def _folder_content(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return digest_of((str(path.relative_to(folder)), file_digest(path)) for path in files)


def _code(spec: Spec) -> dict[str, int]:
    """Versions of the stages, methods and decompositions that take part."""
    stages: list[Any] = [type(spec)]
    if isinstance(spec, CompareSpec | QualitySpec | AblationSpec):
        stages += [AllocateSpec, UpdateSpec, EvaluateSpec]
    methods = getattr(spec, "methods", None) or [getattr(spec, "method", "")]
    named = getattr(spec, "decompositions", None) or [getattr(spec, "decomposition", "")]
    plans = [getattr(holder, "plan", None) or {} for holder in getattr(spec, "answers", None) or [spec]]
    used = [*named, *(str(plan.get("decomposition", "")) for plan in plans)]
    return {
        **{stage.kind: stage.code_version for stage in stages},
        **_versions(ALLOCATORS, methods, getattr(spec, "storages", None) or [getattr(spec, "storage", PAIR)]),
        **_versions(DECOMPOSITIONS, used, [PAIR]),
    }


def _versions(registry: Registry[Any], names: Sequence[str], storages: Sequence[str]) -> dict[str, int]:
    entries: list[MethodEntry] = [registry.get(name) for name in names if name in registry]
    return {entry.name: max(map(entry.version_for, storages)) for entry in entries}


def _version(number: int) -> str:
    """As it is recorded: the first one is not."""
    return "" if str(number) == _FIRST else str(number)
