"""What the terms on a slide mean, in words for people who have never met them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lrc_core.names import method_label
from lrc_core.registry import ALLOCATORS

TERMS = {
    "perplexity": "among how many equally likely words the model hesitates each time; lower is better",
    "±": "standard error: two of three such figures are no further from what all such text would give",
    "energy": "the squared singular values, added up: how much of a matrix its directions hold",
    "break-even": "the rank from which two thin matrices cost as much as the layer itself",
    "key-value cache": "what the model keeps in memory of the text so far",
    "block linears": "the linear layers in the model's blocks, which hold most of its parameters",
    "token": "a word or a piece of one",
    "KL": "distance of the model's predictions from those of the dense model",
    "nats": "unit of lost predictability; 0.7 make the right word half as likely",
    "gensim": "encyclopedia articles that no method has seen",
    "c4": "web pages that no method has seen",
    "pivots": "rows of a matrix of which all others are made: fewer numbers than two thin matrices",
    "tuned": "the factors were trained further after the ranks were chosen",
    "K-FAC": "directions are ranked by an estimate of the loss",
    "Q8_0": "every layer whole, in about 8 bits per number instead of 16",
    "quantise": "store every number in fewer bits",
    "arc_easy": "school questions with several answers to choose from",
    "piqa": "questions about everyday physics, two answers each",
}
"""Terms that may stand on slides besides the names of methods."""
KINDS = {
    ("q_proj", "k_proj", "v_proj", "o_proj"): "query, key, value and output layers of attention",
    ("gate_proj", "up_proj", "down_proj"): "layers of the feed-forward part",
}
"""Kinds of layers, explained together."""


def glosses(*texts: str) -> Iterator[tuple[str, str]]:
    """Term and meaning of everything in some texts that needs one, in the order of the list.

    Args:
        texts: plain text or HTML; tags and attributes count as no words.
    """
    # A closed table is no part of what the room sees.
    shown = (re.sub(r"<details.*?</details>", " ", text, flags=re.DOTALL) for text in texts)
    seen = " ".join(re.sub(r"<[^>]*>", " ", text) for text in shown)
    for term, meaning in TERMS.items():
        if _within(term, seen):
            yield term, meaning
    for kinds, meaning in KINDS.items():
        found = [kind for kind in kinds if _within(kind, seen)]
        if found:
            yield ", ".join(found), meaning
    labels = sorted(((method_label(name), name) for name in ALLOCATORS.names()), key=lambda entry: -len(entry[0]))
    for label, name in labels:
        if _within(label, seen):
            seen = seen.replace(label, " ")  # LLM-Pruner + LoRA is not LLM-Pruner
            summary = ALLOCATORS.get(name).summary.rstrip(".").partition(";")[0]
            yield label, summary[:1].lower() + summary[1:]


def _within(term: str, text: str) -> bool:
    edge = r"(?![\w])" if term != "token" else r"s?(?![\w/])"
    return re.search(rf"(?<![\w]){re.escape(term)}{edge}", text, re.IGNORECASE if term.islower() else 0) is not None
