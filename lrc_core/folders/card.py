"""The model card of an exported folder: README.md with the front matter that hubs read. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lrc_core import __version__
from lrc_core.escape import escaped
from lrc_core.folders.ways import ways_to_load
from lrc_core.plan import Plan
from lrc_core.updates import update_words
from lrc_core.words import data_size, measured, percent

STARTER_SOURCE = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""What the starter pack's model is called on the hub; its weights were packed as GGUF."""


@dataclass(frozen=True)
class Measured:
    """What an evaluation says of the plan, or of the dense model.

    Attributes:
        run_id: of the evaluation.
        texts: perplexity and its standard error by text.
        tasks: accuracy and its standard error by task.
    """

    run_id: str
    texts: Mapping[str, tuple[float, float | None]] = field(default_factory=dict)
    tasks: Mapping[str, tuple[float, float | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class CardFacts:
    """What a card tells.

    Attributes:
        name: of the folder.
        base: name of the original, as people read it.
        hub_id: of the original on the hub; "" where it has none.
        revision: commit of the original; "" where it has none.
        licence: as the original's card gives it; "" where it gives none.
        plan: what was done.
        method: what the method is called.
        form: ``lowrank`` or ``dense``.
        storage: ``pair`` or ``pivoted``; "" where no layer is of low rank.
        dtype: of the stored weights.
        weights: bytes of the weights.
        base_weights: bytes of the original's at the same precision.
        check: record of the check; see :class:`~lrc_core.folders.check.Check`.
        device: where that was.
        measured: rows of the plan.
        dense: rows of the dense model that were measured alike, by run of the plan's row.
        runs: run ids that the folder comes from, with what they did.
        notes: what is to be known of the original.
    """

    name: str
    base: str
    hub_id: str
    revision: str
    licence: str
    plan: Plan
    method: str
    form: str
    storage: str
    dtype: str
    weights: int
    base_weights: int
    check: Mapping[str, Any]
    device: str
    measured: Sequence[Measured] = ()
    dense: Mapping[str, Measured] = field(default_factory=dict)
    runs: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def licence_of(folder: Path) -> str:
    """The licence that a model folder's own card gives; "" where it gives none that can be read."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
        head = yaml.safe_load(text.split("---", 2)[1]) if text.startswith("---") else {}
    except (OSError, IndexError, yaml.YAMLError):
        return ""
    licence = head.get("license", "") if isinstance(head, dict) else ""
    return licence if isinstance(licence, str) and len(licence) < 80 else ""


def card_text(facts: CardFacts) -> str:
    """The whole README.md."""
    head = yaml.safe_dump(_front_matter(facts), sort_keys=False, allow_unicode=True)
    parts = [
        _opening(facts),
        _table(facts),
        _figures(facts),
        _loading(facts),
        _checked(facts),
        _origin(facts),
        _limits(facts),
    ]
    return f"---\n{head}---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(facts: CardFacts) -> dict[str, Any]:
    based = {"base_model": facts.hub_id, "base_model_relation": "quantized"} if facts.hub_id else {}
    licence = {"license": facts.licence} if facts.licence else {}
    tags = ["low-rank", "compression", facts.plan.method, *(["pruning"] if facts.plan.pruned else [])]
    results = [_result(row) for row in facts.measured]
    index = {"model-index": [{"name": facts.name, "results": [one for row in results for one in row]}]}
    return {
        **based,
        **licence,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": tags,
        **(index if any(results) else {}),
    }


def _result(row: Measured) -> list[dict[str, Any]]:
    return [
        {
            "task": {"type": "text-generation"},
            "dataset": {"name": name, "type": name},
            "metrics": [{"type": kind, "value": round(value, 4), "name": f"{kind} (run {row.run_id})"}],
        }
        for kind, found in (("perplexity", row.texts), ("accuracy", row.tasks))
        for name, (value, _) in found.items()
    ]


def _opening(facts: CardFacts) -> str:
    plan = facts.plan
    original = f"[{facts.hub_id}](https://huggingface.co/{facts.hub_id})" if facts.hub_id else escaped(facts.base)
    layers = f"{len(plan.pruned)} pruned" if plan.pruned else f"{len(plan.ranks)} of low rank, {len(plan.dense)} dense"
    basis = "" if plan.pruned else f" on the {plan.decomposition} decomposition"
    how = f"Method: {facts.method}{basis}{update_words(plan.update, plan.storage)}; linear layers: {layers}."
    if facts.form == "dense":
        what = (
            "with low-rank layers **multiplied out again**: the stock architecture, which loads anywhere, with the "
            "quality of the compressed model. **It is as large and as slow as the original**; the small form is the "
            "export with `--form lowrank`."
        )
    else:
        what = (
            f"with {percent(plan.keep_achieved)} of the parameters of its block linears "
            f"({percent(plan.keep_whole_model)} of all)."
        )
    title = f"{facts.name} (dense twin)" if facts.form == "dense" else facts.name
    return f"# {escaped(title)}\n\n{original} {what} {how}"


def _table(facts: CardFacts) -> str:
    share = f" ({percent(facts.weights / facts.base_weights)} of the original's {data_size(facts.base_weights)})"
    rows = [
        ("Weights", f"{data_size(facts.weights)} as {facts.dtype}{share}"),
        ("Target", f"{percent(facts.plan.keep_target)} of the block linears kept"),
        (
            "Stored as",
            facts.storage and {"pair": "two factors a layer", "pivoted": "pivot rows and coefficients"}[facts.storage],
        ),
        ("Rounded to" if facts.form == "dense" else "Packed as", _formats(facts.plan)),
        ("Original", f"{escaped(facts.base)}{f', commit {facts.revision}' if facts.revision else ''}"),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows if value)])


def _formats(plan: Plan) -> str:
    """Number formats of the plan, with how many layers are in each."""
    counts = Counter(plan.formats.values())
    return ", ".join(f"{name} ({count} layers)" for name, count in sorted(counts.items()))


def _figures(facts: CardFacts) -> str:
    lines = []
    for row in facts.measured:
        dense = facts.dense.get(row.run_id, Measured(""))
        for kind, found, other in (("perplexity", row.texts, dense.texts), ("accuracy", row.tasks, dense.tasks)):
            lines += [
                f"| {escaped(name)} | {kind} | {_number(value)} | {_number(other.get(name))} | {row.run_id} |"
                for name, value in found.items()
            ]
    if not lines:
        return "## Figures\n\nNothing was measured of this plan before it was exported: `lrc evaluate --plan` does."
    head = ["| measured on | | this model | original | run |", "|---|---|---|---|---|"]
    return "\n".join(["## Figures\n", *head, *lines])


def _number(value: tuple[float, float | None] | None) -> str:
    if value is None:
        return "–"
    return measured(*value)


def _loading(facts: CardFacts) -> str:
    ways = ways_to_load(facts.name, facts.form)
    said = [f"**{way.title}**\n\n```{way.language}\n{way.code}\n```" for way in ways]
    if facts.form != "dense":
        said.append("Without either, loading fails with mismatched sizes: nothing is made up.")
        if _runs_in_vllm(facts.plan):
            said.append("vLLM runs it with the plug-in `vllm-lowrank`, which lies beside the source of that program.")
    return "## How to load it\n\n" + "\n\n".join(said)


def _runs_in_vllm(plan: Plan) -> bool:
    """Neither pruned nor a mixture of experts, which the plug-in refuses."""
    return not plan.pruned and not any(".experts." in name for name in plan.ranks)


def _checked(facts: CardFacts) -> str:
    check = facts.check
    if not check["windows"]:
        return (
            "## Checked\n\nEvery tensor was read back from the disk and is the one that was written. The folder was "
            "not loaded: it was written block by block, on a machine that may not hold it."
        )
    bits = f"logits differ by at most {check['difference']:.1e} of the largest"
    bits = "every logit has the same bits" if check["equal"] else bits
    return (
        "## Checked\n\nThis folder was loaded by a process of its own, without the program that wrote it, on "
        f"{facts.device}: {bits}, and the perplexity of {check['windows']} windows is {check['perplexity']:.4f} "
        f"(in memory {check['expected']:.4f})."
    )


def _origin(facts: CardFacts) -> str:
    runs = [f"- {what}: `{run}`" for run, what in facts.runs.items()]
    said = f"Written by Low-Rank Compression Explorer {__version__}; `plan.json` holds the plan."
    return "\n".join(["## Where it comes from\n", said, *runs])


def _limits(facts: CardFacts) -> str:
    notes = [f"- {escaped(note)}" for note in facts.notes]
    fast = (
        []
        if facts.form == "dense"
        else ["- Fewer parameters are not faster by themselves: measure on your own machine."]
    )
    packed = (
        [
            f"- Packed layers are unpacked once they are loaded: in memory it takes what its parameters take as "
            f"{facts.dtype}, and it runs as fast as unpacked."
        ]
        if facts.plan.formats and facts.form != "dense"
        else []
    )
    return "\n".join(
        [
            "## Limits\n",
            "- What is not in the table above was not measured: other languages, tasks and long answers may have lost "
            "more.",
            "- It has the original's biases and terms of use.",
            *fast,
            *packed,
            *notes,
        ]
    )
