"""Samples: answers side by side, and the text recorded beside every score."""

from __future__ import annotations

import shlex

from lrc_core.budget import same_size
from lrc_core.formats.grids import BF16
from lrc_core.names import GREY, method_color, method_label
from lrc_core.plan import Plan, plan_variant
from lrc_core.quality.quantised import at_rate
from lrc_core.report.content import Answers, Block, Command, Commands, Section, Words, WrittenAnswer
from lrc_core.report.sections.prose import report_prose
from lrc_core.report.sections.rows import Named, key_of, row_color
from lrc_core.report.sources import Sources
from lrc_core.runs.spec import AnswerSpec, GenerateSpec
from lrc_core.runs.store import Run
from lrc_core.runs.transcript import Answer as Written
from lrc_core.runs.transcript import read_answers
from lrc_core.words import data_size, figure, removed

PROMPT = "Explain in two sentences why the sky is blue."


def samples(named: Named) -> Section:
    """What the models write, word for word."""
    sources = named.sources
    blocks: list[Block] = [_side_by_side(run) for run in sources.answers]
    if not sources.answers:
        blocks += [Words(text, "note") for text in report_prose("no_answers")]
        blocks.append(Commands((Command("Record answers side by side", ask_command(named)),)))
    if sources.sealed:
        blocks.append(
            Words(
                f"{sources.sealed} more were asked blindly and wait for a vote; they are left out until then.", "note"
            )
        )
    blocks += _recorded(named)
    return Section("samples", "Samples", tuple(blocks))


def _side_by_side(run: Run) -> Answers:
    spec = run.spec_as(GenerateSpec)
    written = read_answers(run)
    entries = tuple(_answer(run, answer, written.get(number)) for number, answer in enumerate(spec.answers))
    sampling = spec.sampling
    drawn = f"temperature {sampling.temperature:g}, seed {sampling.seed}" if sampling.temperature else (
        "always the most probable token"
    )  # fmt: skip
    return Answers("Answers side by side", spec.prompt, f"Asked in run `{run.id}`; {drawn}.", entries)


def _answer(run: Run, answer: AnswerSpec, written: Written | None) -> WrittenAnswer:
    plan = None if answer.plan is None else Plan.from_dict(dict(answer.plan))
    name, color, key = "Dense model", GREY, ("", "")
    if plan is not None:
        method = plan_variant(plan)
        name, color = f"{method_label(method)} at {removed(plan.keep_target)}", method_color(method)
        key = key_of(method, plan.keep_target)
    if written is None or not written.done:
        return WrittenAnswer(name, color, "No answer was recorded.", "", run.id, key)
    words = [f"{written.tokens} tokens" + (" (longest allowed)" if written.ended == "length" else "")]
    words += [f"{figure(written.tokens_per_s, 2)} tokens/s (measured)"] if written.tokens_per_s else []
    words += [f"{data_size(BF16.block_bytes * written.params)} in 16 bits"] if written.params else []
    return WrittenAnswer(name, color, written.text.strip() or "(It wrote nothing.)", ", ".join(words), run.id, key)


def ask_command(named: Named) -> str:
    """The line that asks the dense model and up to three plans of the report."""
    sources = named.sources
    near = [shown for shown in sources.plans if same_size(shown.keep, named.focus)] or list(sources.plans)
    plans = [_plan_words(sources, shown.source) for shown in near[:3]]
    words = ["lrc", "generate", sources.card.identity.source]
    return shlex.join([*words, *(["--plan", *plans] if plans else []), "--prompt", PROMPT])


def _plan_words(sources: Sources, run_id: str) -> str:
    """What finds a plan on this computer: the run, or the file in the folder of samples."""
    run = sources.archive.folder(run_id)
    if run is not None and run.path.parent == sources.archive.shipped and (run.path / "plan.json").is_file():
        home = run.path.parents[2]
        return str((run.path / "plan.json").relative_to(home))
    return run_id


def _recorded(named: Named) -> list[Block]:
    """The text sample of every row, by prompt."""
    rows = [row for row in named.rows if "error" not in row and (row.get("sample") or {}).get("text")]
    near = [row for row in rows if not at_rate(row) or row in named.at(named.focus)]
    blocks: list[Block] = []
    for prompt in dict.fromkeys(str(row["sample"].get("prompt", "")) for row in near):
        entries = tuple(
            WrittenAnswer(
                named.name(row),
                row_color(row),
                str(row["sample"]["text"]).strip(),
                "",
                str(row.get("run_id", "")),
                named.key(row),
            )
            for row in near
            if str(row["sample"].get("prompt", "")) == prompt
        )
        title = f"Text recorded beside the scores, {removed(named.focus)} compression"
        note = "The most likely continuation, word for word. Good perplexity with garbage here is a warning."
        blocks.append(Answers(title, prompt, note, entries))
    if named.rows and not blocks:
        blocks.append(Words("These rows recorded no text beside their scores.", "note"))
    return blocks
