"""The bench and the ablations on the Compare page, with the forms that start them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pandas as pd
import streamlit as st

from lrc_core import words
from lrc_core.budget import keep_at, storage_law, whole_percent
from lrc_core.escape import escaped
from lrc_core.names import decomposition_label, method_label, model_label
from lrc_core.quality.over_seeds import over_seeds
from lrc_core.quality.presets import PRESETS, bench_preset, method_presets
from lrc_core.quality.quantised import compresses
from lrc_core.quality.tables import SEED_LEGEND, row_label, rows_csv, seed_table, to_markdown
from lrc_core.quality.variants import methods_with_terms
from lrc_core.registry import ALLOCATORS, DECOMPOSITIONS
from lrc_core.results import benches as bench_data
from lrc_core.results.archive import AnyRun, archive
from lrc_core.runs.spec import STORAGES, AblationSpec, ModelRef, QualitySpec
from lrc_core.updates import NO_UPDATE, UPDATE_LABELS
from pages.ui.bench import figures, readings, shipped
from pages.ui.compare import report
from pages.ui.shared import charting, forms, jobs
from pages.ui.shared.charting import ChartText
from pages.ui.shared.frame import empty, guard, sample_note
from pages.ui.shared.naming import download, file_name, run_labels

RUN = "co_run"
_SIZES = {"bench": "For two cores", "gpu": "For a GPU"}
_PARTS = {"losses": "Loss terms", "texts": "Calibration text"}


def bench(ref: ModelRef) -> None:
    """Every method at every target: chart, table, downloads."""
    found = bench_data.benches(ref, QualitySpec)
    _unfinished(archive().runs(QualitySpec, ref, samples=False))
    if not found:
        if not shipped.bench(ref):
            empty(
                "No bench yet",
                "A bench runs every method at every target on the same text and tasks, with paired tests. It takes "
                "hours, can be stopped, and goes on where it stopped.",
                ":material/leaderboard:",
            )
        _start_bench(ref, expanded=ref != ModelRef())
        return
    chosen = _choose(found, "co_bench")
    left, middle, right = st.columns([3, 2, 1], vertical_alignment="bottom")
    names = bench_data.measures(chosen)
    if names:
        labels = {name: escaped(label) for name, label in names.items()}
        measure = forms.pick(left, "Quality", labels, next(iter(names)), f"co_measure_{chosen.view.id}")
        axis = forms.pick(
            middle, "Size", bench_data.AXES, "linear", "co_axis", bind="query-params",
            help="Block linears: what methods share out. Whole model: embeddings and head as well, which are kept.",
        )  # fmt: skip
        log = right.toggle("Logarithmic", value=True, key="co_bench_log")
        caption = ChartText(
            "Quality over size, one line per method, the dense model dashed, reference models as named points",
            _frame(chosen),
            readings.leaders(chosen, measure, names[measure]),
            folded=False,
        )
        under = _choose_decomposition(chosen)
        figure = figures.pareto(chosen, measure, axis, log=log, decomposition=under)
        charting.plotly(figure, caption, key="co_pareto", name="size-and-quality")
    _table(chosen, "bench", drawn=bool(names))
    with guard():
        report.section([chosen.view], "co_bench")
    if ref == ModelRef():
        fold = st.expander("The bench that ships", icon=":material/inventory_2:", key="co_shipped", on_change="rerun")
        if fold.open:
            with fold:
                shipped.bench(ref)
    _start_bench(ref)


def ablation(ref: ModelRef) -> None:
    """What loss terms and calibration texts are worth: bars, table, downloads."""
    found = bench_data.benches(ref, AblationSpec)
    _unfinished(archive().runs(AblationSpec, ref, samples=False))
    if not found:
        if not shipped.ablations(ref):
            empty(
                "No ablation yet",
                "An ablation trains a method with each term of its loss alone and left out, and with other calibration "
                "text, and measures every plan.",
                ":material/science:",
            )
        _start_ablation(ref, expanded=ref != ModelRef())
        return
    chosen = _choose(found, "co_ablation")
    variants = [row for row in chosen.measured if row.get("variant")]
    parts = [part for part in _PARTS if any(row.get("part") == part for row in variants)]
    log = st.toggle("Logarithmic", key="co_ablation_log")
    for method in dict.fromkeys(str(row["method"]) for row in variants):
        for part in parts:
            rows = [row for row in variants if row["method"] == method and row["part"] == part]
            for keep in dict.fromkeys(float(row["keep_target"]) for row in rows):
                first_seed = chosen.view.spec.seeds[0]
                shown = [row for row in rows if row["keep_target"] == keep and row["seed"] == first_seed]
                title = f"{method_label(method)}: {_PARTS[part].lower()}, {words.removed(keep)} removed"
                st.markdown(f"**{escaped(title)}**")
                caption = ChartText(
                    f"{title}: " + ", ".join(str(row["variant"]) for row in shown),
                    _frame(replace(chosen, rows=tuple(shown))),
                    readings.worst_variant(chosen, shown),
                )
                charting.plotly(
                    figures.variants_side_by_side(chosen, shown, bench_data.measures(chosen), log=log),
                    caption,
                    key=f"co_variants_{method}_{part}_{keep}",
                    name=f"ablation-{method}-{part}",
                )
    notes = dict.fromkeys(f"{row['variant']}: {row['note']}" for row in variants if row.get("note"))
    st.caption("The solid bar is the variant that the others are tested against. " + escaped(". ".join(notes)))
    _table(chosen, "ablation")
    _start_ablation(ref)


def _unfinished(views: Sequence[AnyRun]) -> None:
    for view in [view for view in views if not view.final or (view is views[0] and view.status.stopped)][:2]:
        jobs.panel(view.id)


def _choose(found: Sequence[bench_data.Bench], key: str) -> bench_data.Bench:
    if len(found) == 1:
        return found[0]
    labels = run_labels([one.view for one in found])
    forms.follow_link(RUN, key, {one.view.id: place for place, one in enumerate(found)})
    return found[forms.one_of(st, "Run", {place: labels[one.view.id] for place, one in enumerate(found)}, key)]


def _choose_decomposition(chosen: bench_data.Bench) -> str:
    """The decomposition whose lines are drawn; "" for all, which with many methods is a thicket."""
    names = bench_data.decompositions_of(chosen)
    if len(names) < 2:
        return ""
    labels = {**{name: decomposition_label(name) for name in names}, "": "All"}
    return forms.pick(st, "Decomposition", labels, names[0], "co_bench_under")


def _table(chosen: bench_data.Bench, name: str, *, drawn: bool = False) -> None:
    """The table, unless it is ``drawn`` already, with what its signs mean, its downloads, and its command."""
    if not drawn:
        st.dataframe(_frame(chosen), hide_index=True, alt="All cells of this run")
    if cells := over_seeds(chosen.rows):
        st.markdown("**Over seeds**")
        size = ("Target", lambda row: words.removed(float(row["keep_target"])))
        header, lines = seed_table(cells, chosen.baselines, size)
        frame = pd.DataFrame(lines, columns=[name[:1].upper() + name[1:] for name in header])
        st.dataframe(frame, hide_index=True, alt="Means over seeds, and how they spread")
        st.caption(SEED_LEGEND)
    if chosen.failed:
        st.caption(":material/error: Failed: " + "; ".join(_failure(row) for row in chosen.failed[:5]))
    st.caption(bench_data.signs(chosen))
    files = (
        ("CSV", rows_csv(chosen.result), "csv"),
        ("Markdown", to_markdown(chosen.result), "md"),
        ("JSON", json.dumps(chosen.result, indent=1), "json"),
    )
    keeps = {float(row["keep_target"]) for row in chosen.measured if compresses(row)}
    rates = ", ".join(str(whole_percent(keep)) for keep in sorted(keeps, reverse=True))
    saved = partial(file_name, model_label(chosen.view.spec.model), name, f"{rates} % removed" if rates else "")
    with st.container(horizontal=True):
        for label, content, ending in files:
            download(f"Table ({label})", content, saved(ending=ending), key=f"co_{name}_{ending}")
    sample_note(chosen.view.sample, chosen.view.id)
    jobs.command(chosen.view.spec)


def _frame(bench: bench_data.Bench) -> pd.DataFrame:
    """All rows as a table; remarks in the last column."""
    frame = pd.DataFrame(bench_data.records(bench)).fillna("")
    return frame[[name for name in frame.columns if name != "Note"] + (["Note"] if "Note" in frame else [])]


def _failure(row: bench_data.Row) -> str:
    return escaped(f"{row_label(row)} at {words.removed(float(row['keep_target']))}: {row['error']}")


def _start_bench(ref: ModelRef, *, expanded: bool = False) -> None:
    if jobs.instead(QualitySpec(model=ref)):
        return
    names = list(ALLOCATORS.names())
    with (
        st.expander("Start a bench", icon=":material/add:", expanded=expanded),
        st.form("co_bench_form", border=False, enter_to_submit=False),
    ):
        labels = {name: method_label(name) for name in names}
        methods = forms.several(st, "Methods", labels, names, "co_bench_methods")
        left, right = st.columns(2)
        rates = forms.compressions(left, [10, 20, 30, 40], "co_bench_rates")
        under = right.multiselect(
            "Decompositions", list(DECOMPOSITIONS.names()), default=["whitened"], format_func=decomposition_label,
            key="co_bench_decompositions",
        )  # fmt: skip
        size = left.selectbox("Size", list(PRESETS), format_func=_SIZES.__getitem__, key="co_bench_size")
        updates = forms.several(
            right, "Update of the factors", UPDATE_LABELS, [NO_UPDATE], "co_bench_updates",
            help="Each in rows of its own: plans as allocated, fitted in closed form, or tuned by gradient steps.",
        )  # fmt: skip
        storages = forms.several(
            right, "Storage", {name: storage_law(name).label for name in STORAGES}, STORAGES, "co_bench_storages",
            help="How low-rank layers are stored and counted, each in rows of its own.",
        )  # fmt: skip
        seeds = left.number_input(
            "Seeds", 1, 10, 1, key="co_bench_seeds",
            help="How many draws of the calibration text, each in rows of its own: two or more say how far a result "
            "depends on the draw.",
        )  # fmt: skip
        references = right.text_input(
            "Reference models", key="co_bench_references",
            help="Hub ids, folders or GGUF files of models to measure beside this one, separated by commas.",
        )  # fmt: skip
        if not st.form_submit_button("Start the bench", type="primary", icon=":material/play_arrow:"):
            return
    if not (methods and rates and under and updates and storages):
        st.warning("Choose at least one method, compression, decomposition, kind of update and storage.")
        return
    preset = bench_preset(size)
    chosen = tuple(name for name in names if name in methods)
    spec = QualitySpec(
        model=ref,
        methods=chosen,
        keeps=tuple(keep_at(rate) for rate in sorted(rates)),
        decompositions=tuple(under),
        presets=method_presets(preset, chosen),
        references=tuple(part.strip() for part in references.split(",") if part.strip()),
        calibration=preset.calibration,
        evaluation=preset.evaluation,
        updates=tuple(name for name in UPDATE_LABELS if name in updates),
        storages=tuple(name for name in STORAGES if name in storages),
        seeds=tuple(range(int(seeds))),
    )
    if jobs.submit(spec):
        st.rerun()


def _start_ablation(ref: ModelRef, *, expanded: bool = False) -> None:
    if jobs.instead(AblationSpec(model=ref)):
        return
    names = list(methods_with_terms())
    with (
        st.expander("Start an ablation", icon=":material/add:", expanded=expanded),
        st.form("co_ablation_form", border=False, enter_to_submit=False),
    ):
        left, right = st.columns(2)
        labels = {name: method_label(name) for name in names}
        methods = forms.several(left, "Methods", labels, names, "co_ablation_methods")
        parts = forms.several(right, "What is varied", _PARTS, _PARTS, "co_ablation_parts")
        size = left.selectbox("Size", list(PRESETS), format_func=_SIZES.__getitem__, key="co_ablation_size")
        if not st.form_submit_button("Start the ablation", type="primary", icon=":material/play_arrow:"):
            return
    if not methods or not parts:
        st.warning("Choose at least one method, and what is varied.")
        return
    preset = bench_preset(size)
    chosen = tuple(name for name in names if name in methods)
    spec = AblationSpec(
        model=ref,
        methods=chosen,
        parts=tuple(part for part in _PARTS if part in parts),
        presets=method_presets(preset, chosen),
        calibration=preset.calibration,
        evaluation=replace(preset.evaluation, tasks=()),
    )
    if jobs.submit(spec):
        st.rerun()
