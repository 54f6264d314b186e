"""Texts and the token windows cut out of them.

A text is a list of documents. Built-in ones come with the starter pack; others are UTF-8 files, JSONL files with a
``text`` field, or data sets on the Hugging Face hub. So that nothing is reported on what it was tuned on, documents are
dealt into three parts by their index: of every five, three to calibrate, one to select settings, one to report.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from lrc_core.errors import TextError
from lrc_core.models.pack import starter
from lrc_core.runs.spec import GENERATED
from lrc_core.types import OnProgress, ShouldStop, ignore_progress, never_stop

BUILT_IN = (*starter.TEXTS, "gensim")
PARTS = {"calibrate": (0, 1, 2), "select": (3,), "report": (4,)}
_OFFICIAL_SPLITS = {"calibrate": "train", "select": "validation", "report": "test", "all": "train"}
_ARTICLE = re.compile(r'<doc id="[^"]*" url="[^"]*" title="[^"]*">\n(.*?)</doc>', re.DOTALL)
_LEAST_ARTICLE = 1000
"""Shortest article of ``wiki`` kept, in characters: most of the others are a title and one sentence."""
_PIECE = 4000
"""Length, in characters, of the documents that a built-in text without document borders is cut into."""
_HUB_DATA_SET = re.compile(r"[\w.-]+/[\w.-]+(:[^:]*){0,2}")
_SEPARATOR = "\n\n"
_AT_ONCE = 4_000_000
"""Characters tokenised in one go: all of it for usual texts, which is what published perplexities do."""


def load_documents(
    name: str,
    part: str = "all",
    *,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> list[str]:
    """The documents of a text.

    Args:
        name: one of :data:`BUILT_IN`, a file, or a hub data set ``owner/name[:config[:split]]``.
        part: ``calibrate``, ``select``, ``report``, or ``all``. A text of fewer than five documents cannot be divided
            and is used whole; a data set's own splits are used where no split is named. ``gensim`` is only reported on.
        on_progress: called during downloads.
        should_stop: asked during downloads.

    Raises:
        TextError: unknown name or part, unreadable, or empty.
        PackError: a built-in text cannot be fetched.
    """
    if part not in ("all", *PARTS):
        raise TextError(f"There is no part {part!r} of a text.", f"Choose all, {', '.join(PARTS)}.")
    path = Path(name).expanduser()
    if name == GENERATED:
        raise TextError("The text generated is written by the model itself and can only be calibrated on.")
    if name == "gensim":
        return _articles(part, on_progress, should_stop)
    if name in BUILT_IN:
        file = starter.ensure_texts(on_progress, should_stop) / f"{name}.utf8"
        documents = _built_in(name, file.read_text(encoding="utf-8"))
    elif path.is_file():
        documents = _jsonl(path) if path.suffix.lower() == ".jsonl" else [_utf8(path)]
    elif _HUB_DATA_SET.fullmatch(name) and path.suffix.lower() not in (".txt", ".jsonl", ".json", ".md"):
        documents, split = _hub_data_set(name, part)
        part = "all" if split else part
    else:
        raise TextError(
            f"There is no text {name!r}.",
            f"Name a UTF-8 or .jsonl file that exists, a hub data set (owner/name), or one of {', '.join(BUILT_IN)}.",
        )
    if not any(document.strip() for document in documents):
        raise TextError(f"The text {name} is empty.")
    return part_of(documents, part)


def part_of(documents: Sequence[str], part: str) -> list[str]:
    """The documents of a part by index: i mod 5 in 0, 1, 2 calibrate, 3 select, 4 report. Fewer than five: all."""
    if part == "all" or len(documents) < 5:
        return list(documents)
    return [document for index, document in enumerate(documents) if index % 5 in PARTS[part]]


def token_windows(
    documents: Sequence[str], tokenizer: Any, *, window: int, count: int, seed: int, bos: bool = False
) -> Tensor:
    """Distinct, non-overlapping windows out of the documents' token stream, chosen by the seed.

    Args:
        documents: joined by an empty line.
        tokenizer: of the model.
        window: tokens in a window, the beginning-of-sequence token included where there is one.
        count: windows wanted, in a seeded order (fewer of one seed are a beginning of more); 0 for all, in order.
        seed: chooses.
        bos: start every window with the tokenizer's beginning-of-sequence token.

    Returns:
        LongTensor [n, window] on the CPU; n is less than ``count`` where the text has no more.

    Raises:
        TextError: too short for one window, or no such token.
    """
    body = _body(window, tokenizer, bos)
    stream = _token_stream(documents, tokenizer)
    available = _require_one(len(stream), body) // body
    windows = stream[: available * body].view(available, body)
    if count:
        order = torch.randperm(available, generator=torch.Generator().manual_seed(seed))
        windows = windows[order[:count]]
    return _with_bos(windows, tokenizer, bos)


def mixed_windows(
    names: Sequence[str],
    tokenizer: Any,
    *,
    part: str,
    window: int,
    count: int,
    seed: int,
    made: Mapping[str, Callable[[int, int, int], Tensor]] = MappingProxyType({}),
) -> Tensor:
    """Windows out of several texts, an equal share of each, taking turns so that every batch is mixed.

    Args:
        names: texts as in :func:`load_documents`.
        tokenizer: of the model.
        part: part of every text.
        window: tokens in a window.
        count: windows in all; 0 for all there are. Earlier texts get one more where it does not divide.
        seed: chooses.
        made: texts that are made and not read, by name: ``(count, window, seed)`` to [count, window] token ids.

    Returns:
        LongTensor [n, window] on the CPU; n is less than ``count`` where a text is too short for its share.

    Raises:
        TextError: no names, or a text that cannot be read or is too short.
    """
    if not names:
        raise TextError("No calibration text is named.", f"Choose from {', '.join(BUILT_IN)}, or a file.")
    shares = []
    for index, name in enumerate(names):
        share = count // len(names) + (index < count % len(names))
        if count and not share:
            continue
        if name in made:
            shares.append(made[name](share, window, seed))
            continue
        shares.append(token_windows(load_documents(name, part), tokenizer, window=window, count=share, seed=seed))
    longest = max(len(share) for share in shares)
    turns = [share[turn] for turn in range(longest) for share in shares if turn < len(share)]
    return torch.stack(turns)


def sequential_windows(
    documents: Sequence[str],
    tokenizer: Any,
    *,
    window: int,
    max_windows: int,
    stride: int = 0,
    bos: bool = False,
) -> Tensor:
    """Windows in order, for perplexity; where there are more than wanted, spread evenly over the text.

    Args:
        documents: joined by an empty line.
        tokenizer: of the model.
        window: tokens in a window, the beginning-of-sequence token included where there is one.
        max_windows: most windows; 0 for all.
        stride: tokens between window starts; 0 for the window, so that none overlap.
        bos: start every window with the tokenizer's beginning-of-sequence token.

    Returns:
        LongTensor [n, window] on the CPU. An incomplete window at the end is left out.

    Raises:
        TextError: too short for one window, an impossible stride, or no such token.
    """
    body = _body(window, tokenizer, bos)
    step = stride or body
    if not 0 < step <= body:
        raise TextError(f"A stride of {stride} does not fit windows of {window} tokens.", f"Use 1 to {body}, or 0.")
    stream = _token_stream(documents, tokenizer)
    available = (_require_one(len(stream), body) - body) // step + 1
    chosen = min(max_windows or available, available)
    starts = [index * available // chosen * step for index in range(chosen)]
    return _with_bos(torch.stack([stream[start : start + body] for start in starts]), tokenizer, bos)


def wants_bos(choice: str, tokenizer: Any) -> bool:
    """Whether windows start with the beginning-of-sequence token.

    Args:
        choice: ``yes``, ``no``, or ``auto``: as the tokenizer does with any text (Llama and Gemma do, GPT-2 does not).
        tokenizer: of the model.
    """
    if choice != "auto":
        return choice == "yes"
    bos = getattr(tokenizer, "bos_token_id", None)
    return bos is not None and list(tokenizer("a").input_ids)[:1] == [bos]


def _articles(part: str, on_progress: OnProgress, should_stop: ShouldStop) -> list[str]:
    if part != "report":
        raise TextError(
            "The text gensim is only reported on, so that it stays unseen.", "Choose wiki or c4 for anything else."
        )
    return _jsonl(starter.ensure_articles(on_progress, should_stop))


def _built_in(name: str, text: str) -> list[str]:
    if name == "wiki":
        articles = (body.strip() for body in _ARTICLE.findall(text))
        return [article for article in articles if len(article) > _LEAST_ARTICLE]
    if name == "c4":  # one page a line; other line separators belong to the page
        return [page for page in text.split("\n") if page.strip()]
    return list(_pieces(text))


def _pieces(text: str) -> Iterator[str]:
    """Cut at the first line end after every :data:`_PIECE` characters."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + _PIECE)
        end = len(text) if end < 0 else end
        if piece := text[start:end].strip("\n"):
            yield piece
        start = end + 1


def _utf8(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TextError(
            f"{path} is not UTF-8 text: byte {error.start} cannot be read.", "Save it as UTF-8 plain text."
        ) from error
    except OSError as error:
        raise TextError(f"Cannot read {path}: {error.strerror}.") from error


def _jsonl(path: Path) -> list[str]:
    documents = []
    for number, line in enumerate(_utf8(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)["text"]
        except (ValueError, KeyError, TypeError):
            text = None
        if not isinstance(text, str):
            raise TextError(f'Line {number} of {path} is not a JSON object with a "text" string.')
        documents.append(text)
    return documents


def _hub_data_set(name: str, part: str) -> tuple[list[str], str]:
    """The rows of a data set, and the split they are when that already is the wanted part."""
    import datasets

    repository, _, rest = name.partition(":")
    config, _, split = rest.partition(":")
    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(repository, config or None, split=split or None)
    except Exception as error:  # the library raises many kinds, and passes on those of the hub
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TextError(
            f"The data set {name} cannot be loaded: {reason}",
            "Check the spelling (owner/name:config:split) and the network connection, or use a local file.",
        ) from error
    official = ""
    if isinstance(loaded, dict):
        if part != "all" and _OFFICIAL_SPLITS[part] in loaded:
            official = _OFFICIAL_SPLITS[part]
        loaded = loaded[official or ("train" if "train" in loaded else next(iter(loaded)))]
    return _text_column(loaded, name), official


def _text_column(rows: Any, name: str) -> list[str]:
    columns = list(rows.column_names)
    column = (
        "text" if "text" in columns else next((c for c in columns if len(rows) and isinstance(rows[0][c], str)), "")
    )
    if not column:
        raise TextError(f"The data set {name} has no column of text; it has {', '.join(columns)}.")
    return [str(text) for text in rows[column]]


def _token_stream(documents: Sequence[str], tokenizer: Any) -> Tensor:
    """All tokens, without special ones, LongTensor [n]."""
    tokens: list[Tensor] = []
    for group in _groups(documents):
        ids = tokenizer(group, add_special_tokens=False, return_attention_mask=False, verbose=False).input_ids
        tokens.append(torch.tensor(ids, dtype=torch.long))
    return torch.cat(tokens) if tokens else torch.empty(0, dtype=torch.long)


def _groups(documents: Sequence[str]) -> Iterator[str]:
    """The documents joined, in pieces of bounded length so that a huge text does not need its size in memory again."""
    group: list[str] = []
    size = 0
    for document in documents:
        if group and size + len(document) > _AT_ONCE:
            yield _SEPARATOR.join(group) + _SEPARATOR
            group, size = [], 0
        group.append(document)
        size += len(document)
    if group:
        yield _SEPARATOR.join(group)


def _body(window: int, tokenizer: Any, bos: bool) -> int:
    """Tokens of text in a window."""
    if bos and getattr(tokenizer, "bos_token_id", None) is None:
        raise TextError("This tokenizer has no beginning-of-sequence token.", "Set bos to no.")
    if window < 2 + bos:
        raise TextError(f"A window of {window} tokens is too short.", "Use 32 or more.")
    return window - bos


def _require_one(tokens: int, body: int) -> int:
    if tokens < body:
        raise TextError(
            f"The text has {tokens} tokens, fewer than one window of {body}.", "Use a longer text or a shorter window."
        )
    return tokens


def _with_bos(windows: Tensor, tokenizer: Any, bos: bool) -> Tensor:
    if not bos:
        return windows.contiguous()
    return torch.cat([windows.new_full((len(windows), 1), int(tokenizer.bos_token_id)), windows], dim=1)
