"""Compare: methods side by side at the same budget, as measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from lrc_core import words
from lrc_core.budget import keep_at, whole_percent
from lrc_core.errors import LrcError
from lrc_core.escape import csv_cell, escaped
from lrc_core.formats.grids import QUANTISED
from lrc_core.names import decomposition_label, method_label, model_label
from lrc_core.quality.rows import named
from lrc_core.quality.starter_bench import RECOMMENDED, Recommendation
from lrc_core.registry import ALLOCATORS, DECOMPOSITIONS
from lrc_core.results import comparisons
from lrc_core.results.archive import archive
from lrc_core.results.decisions import decision_of
from lrc_core.results.plans import shipped_without_factors
from lrc_core.runs.spec import CalibrationSpec, CompareSpec, EvaluateSpec, EvaluationSpec, ModelRef, UpdateSpec
from lrc_core.runs.store import RunStore
from lrc_core.updates import UPDATE_LABELS
from pages.ui.bench import views as bench_views
from pages.ui.compare import cards, report
from pages.ui.compare import views as compare_views
from pages.ui.shared import cards as model_cards
from pages.ui.shared import choices, forms, jobs, state, take_away
from pages.ui.shared.frame import PAGES, empty, frame, guard, page_link, sample_note
from pages.ui.shared.naming import download, file_name, told_apart
from pages.ui.shared.prose import prose

METHODS, FACTORS, LAW, FOLLOWS = "co_new_methods", "co_new_decomposition", "co_new_storage", "co_new_update"
DECOMPOSITION, KEEP, VIEW, GROUP, SECTION = "co_decomposition", "co_rate", "co_view", "co_group", "co_section"


def unfinished(ref: ModelRef) -> bool:
    """Panels of comparisons and evaluations that are under way or stopped; whether there were any."""
    views = [
        view
        for view in archive().runs(ref=ref, samples=False)
        if isinstance(view.spec, CompareSpec | EvaluateSpec | UpdateSpec)
    ]
    shown = [view for view in views if not view.final] + [view for view in views[:1] if view.status.stopped]
    for view in shown[:3]:
        jobs.panel(view.id)
    return bool(shown)


def choose_presets(names: list[str]) -> dict[str, str]:
    """A choice for every method that has several presets; returns those that are not on their first one."""
    found = {}
    for name in names:
        first, *others = ALLOCATORS.get(name).presets
        if others:
            chosen = st.selectbox(method_label(name), [first, *others], key=f"co_new_{name}")
            if chosen != first:
                found[name] = chosen
    return found


def choose_formats() -> list[str]:
    """Number formats in which the model is measured without ranks."""
    return st.pills(
        "Just quantised, for comparison",
        QUANTISED,
        selection_mode="multi",
        default=QUANTISED,
        key="co_new_formats",
        help="The model with every block linear rounded to a number format of llama.cpp and no rank reduced: "
        "what you could do instead, at its true bytes.",
    )


def filled() -> Recommendation | None:
    """Which of the three choices the form says; None where it says other methods, or nothing was chosen."""
    said = [st.session_state.get(key) for key in (METHODS, FACTORS, LAW, FOLLOWS)]
    return next((one for one in RECOMMENDED if [*_form_of(one).values()] == [tuple(said[0] or ()), *said[1:]]), None)


def _form_of(choice: Recommendation) -> dict[str, object]:
    """What a choice writes into the form, by key."""
    values = (choice.methods, choice.decomposition, choice.storage, choice.update)
    return dict(zip((METHODS, FACTORS, LAW, FOLLOWS), values, strict=True))


def fill(choice: Recommendation) -> None:
    """One of the three choices stands in the form from now on; its button alone starts it."""
    for key, value in _form_of(choice).items():
        st.session_state[key] = list(value) if isinstance(value, tuple) else value


def new_comparison(ref: ModelRef) -> None:
    """The form that starts a comparison; what is changed in it redraws its price and nothing else."""
    if not jobs.instead(CompareSpec(model=ref)):
        st.fragment(_comparison_form)(ref)


def _comparison_form(ref: ModelRef) -> None:
    with guard():
        spec = _asked(ref)
        if spec is None:
            st.warning("Choose at least one method and one compression.")
            return
        pressed = st.button("Start the comparison", type="primary", icon=":material/play_arrow:", key="co_start")
        jobs.price_note(spec)
        if pressed and jobs.submit(spec):
            st.rerun()


def _asked(ref: ModelRef) -> CompareSpec | None:
    """The fields of the form, and the comparison that they say; None where there is nothing to compare."""
    names = choices.ordered_methods()
    methods = _methods_asked(names)
    left, right = st.columns(2)
    rates = forms.compressions(right, [10, 20], "co_new_rates")
    labels = {name: decomposition_label(name) for name in DECOMPOSITIONS.names()}
    decomposition = forms.one_of(left, "Decomposition", labels, FACTORS, first=list(labels).index("whitened"))
    update = forms.one_of(right, "Update of the factors", UPDATE_LABELS, FOLLOWS, help=jobs.UPDATE_HELP)
    with left:
        formats = choose_formats()
        storage = forms.storage(LAW, None, linked=False)
    with right.expander("Presets", icon=":material/tune:"):
        presets = choose_presets(names)
    evaluation = forms.evaluation("co_new")
    if not methods or not rates:
        return None
    return CompareSpec(
        model=ref,
        methods=tuple(name for name in ALLOCATORS.names() if name in methods),
        keeps=tuple(keep_at(rate) for rate in sorted(rates)),
        decomposition=decomposition,
        presets={name: preset for name, preset in presets.items() if name in methods},
        evaluation=evaluation,
        update=update,
        formats=tuple(name for name in QUANTISED if name in formats),
        storage=storage,
    )


def _methods_asked(names: list[str]) -> list[str]:
    choices.three_choices(filled(), "co_take", fill)
    with st.expander("All methods", icon=":material/apps:", expanded=filled() is None):
        labels = {name: method_label(name) for name in names}
        methods = forms.several(st, "Methods", labels, CompareSpec().methods, METHODS, wrap=True)
        choices.all_methods_table(names)
    return methods


def _choose_group(groups: Sequence[comparisons.Group]) -> comparisons.Group:
    if len(groups) == 1:
        return groups[0]
    named = {view.id: place for place, group in enumerate(groups) for view in group.views}
    forms.follow_link(bench_views.RUN, GROUP, named)
    labels = told_apart({f"{place} {group.views[0].id}": group.label for place, group in enumerate(groups)})
    index = st.selectbox(
        "Measured with", range(len(groups)), format_func=list(labels.values()).__getitem__, key=GROUP,
        help="Only rows measured with the same texts, windows and tasks are shown side by side.",
    )  # fmt: skip
    return groups[index]


def choose(groups: list[comparisons.Group]) -> tuple[comparisons.Group, str, float]:
    """Which measurements, decomposition and budget are shown."""
    group = _choose_group(groups)
    names = comparisons.decompositions_of(group)
    if not names:  # what has no ranks stands beside those of every decomposition, and there is nothing to choose yet
        return group, CompareSpec().decomposition, keep_at(state.DEFAULT_RATE)
    left, right = st.columns(2)
    if len(names) > 1:
        names = [comparisons.EVERY, *names]
    labels = {name: "Best of each" if name == comparisons.EVERY else decomposition_label(name) for name in names}
    best = "Best of each: of every method the row that lost least, whatever its decomposition."
    decomposition = forms.pick(left, "Decomposition", labels, names[0], DECOMPOSITION, help=best, bind="query-params")
    rates = [whole_percent(keep) for keep in comparisons.keeps_of(group, decomposition)] or [state.DEFAULT_RATE]
    return group, decomposition, keep_at(forms.rate_choice(right, "Compression", rates, KEEP))


def fill_missing(ref: ModelRef, group: comparisons.Group, decomposition: str) -> None:
    """Cells that have not been measured, and the job that measures them."""
    if decomposition == comparisons.EVERY:
        return
    cells = comparisons.missing(group, decomposition, comparisons.asked_for(group, decomposition))
    dense = any(row["method"] == "dense" for row in group.rows)
    if not cells and (dense or not comparisons.asked_for(group, decomposition)):
        return
    found = [f"{method_label(method)} at {words.removed(keep)}" for method, keep in cells]
    if not dense:
        found.insert(0, "the dense model, without which no loss is known")
    named = ", ".join(found)
    with st.container(border=True):
        st.markdown(f":material/grid_off: **Not measured yet:** {named}.")
        if group.sample:
            st.caption(
                "The rows shown came with the program: the job measures them again on this computer, with these cells."
            )
        calibration = group.calibrations[0] if group.calibrations else CalibrationSpec()
        evaluation: EvaluationSpec = group.evaluation
        spec = CompareSpec(
            model=ref,
            methods=comparisons.asked_for(group, decomposition),
            keeps=tuple(comparisons.keeps_of(group, decomposition)),
            decomposition=decomposition,
            presets=_presets(group),
            calibration=calibration,
            evaluation=evaluation,
        )
        if jobs.instead(spec):
            return
        pressed = st.button("Measure these cells", icon=":material/play_arrow:", key="co_fill")
        jobs.price_note(spec)
        if pressed and jobs.submit(spec):
            st.rerun()


def _presets(group: comparisons.Group) -> dict[str, str]:
    """The presets that the group's newest comparison used."""
    return next((dict(view.spec.presets) for view in group.views if isinstance(view.spec, CompareSpec)), {})


def downloads(ref: ModelRef, group: comparisons.Group, decomposition: str) -> None:
    """The whole table for other programs."""
    rows = [dict(row) for row in group.at(decomposition, None)]
    rates = ", ".join(str(whole_percent(keep)) for keep in comparisons.keeps_of(group, decomposition))
    under = "best of each" if decomposition == comparisons.EVERY else decomposition_label(decomposition)
    name = partial(file_name, model_label(ref), "comparison", under, f"{rates} % removed")
    with st.container(horizontal=True):
        download(
            "Table (CSV)",
            pd.DataFrame(comparisons.records(rows, method_label)).map(csv_cell).to_csv(index=False),
            name(ending="csv"),
            key="co_csv",
        )
        download("Table (JSON)", json.dumps({"rows": rows}, indent=1), name(ending="json"), key="co_json")


def measured_plans(rows: Sequence[Mapping[str, Any]]) -> list[take_away.Offer]:
    """The plans behind the rows that are shown."""
    return [
        take_away.offer_of(str(row["run_id"]), f"{method_label(named(row))} at {words.removed(row['keep_target'])}")
        for row in rows
        if row["method"] != "dense" and row.get("run_id") and not _left_out(str(row["run_id"]))
    ]


def _left_out(run_id: str) -> bool:
    try:
        return shipped_without_factors(run_id, RunStore())
    except LrcError:  # it is said when the plan is asked for
        return False


def body(ref: ModelRef) -> None:
    names = {name: label for name, (label, _) in SECTIONS.items()}
    section = forms.pick(st, "Show", names, "rows", SECTION, bind="query-params", label_visibility="collapsed")
    with guard():
        SECTIONS[section][1](ref)


def side_by_side(ref: ModelRef) -> None:
    """Methods at one budget."""
    groups = comparisons.groups(ref)
    if not groups:
        busy = unfinished(ref)
        if not busy:
            empty(
                "Nothing measured yet",
                "A comparison allocates with every method at the same budget, and measures each plan and the "
                "dense model. Rows appear here as they come.",
                ":material/balance:",
            )
        with st.expander("Start a comparison", icon=":material/add:", expanded=not busy):
            new_comparison(ref)
        return
    st.caption(prose("compare"))
    group, decomposition, keep = choose(groups)
    unfinished(ref)
    rows = group.at(decomposition, keep)
    known = archive().newest_card(ref)
    model_cards.coverage(known[0] if known else None)
    for note in comparisons.differences(group.at(decomposition, None), group):
        st.caption(f":material/info: {escaped(note)}")
    names = {name: label for name, (label, _) in compare_views.VIEWS.items()}
    view = forms.pick(st, "View", names, "overview", VIEW, bind="query-params", label_visibility="collapsed")
    with guard():
        compare_views.VIEWS[view][1](group, decomposition, rows, ref)
    with guard():
        cards.under_rows(rows, ref, decision_of(ref, group, decomposition))
    fill_missing(ref, group, decomposition)
    take_away.section(ref, measured_plans(rows), "co")
    downloads(ref, group, decomposition)
    page_link(
        PAGES["present"].file,
        f"Present it, at {words.removed(keep)}",
        PAGES["present"].icon,
        query={"pr_rate": str(whole_percent(keep)), "pr_from": "compare", **state.way_back()},
    )
    with guard():
        report.section(group.views, "co", keep)
    sample_note(group.sample, *(source.id for source in group.views))
    fold = st.expander("Start another comparison", icon=":material/add:", key="co_more", bind="query-params")
    if fold.open:  # its two dozen widgets are drawn for those who look at them
        with fold:
            new_comparison(ref)


SECTIONS = {
    "rows": ("Side by side", side_by_side),
    "bench": ("Bench", bench_views.bench),
    "ablation": ("Ablations", bench_views.ablation),
}

model_ref = frame("compare")
st.title("Compare")
with guard():
    body(model_ref)
jobs.rerun_if_asked()
