"""Forms generated from settings dataclasses: label, help, range and default come from the field itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

import streamlit as st

from lrc_core.budget import LAWS
from lrc_core.errors import TextError
from lrc_core.escape import escaped
from lrc_core.models.pack.starter import TASKS
from lrc_core.paths import read_only
from lrc_core.plan import DEFAULT_STORAGE
from lrc_core.registry import MethodEntry
from lrc_core.results.series import LARGEST_RATE
from lrc_core.runs.spec import RANK_MULTIPLES, CalibrationSpec, EvaluationSpec
from lrc_core.settings import FieldInfo, fields_of
from lrc_core.texts.documents import require_known
from lrc_core.texts.files import absolute, is_file, read_file
from lrc_core.texts.label import text_label
from lrc_core.types import Storage
from pages.ui.shared import state

K = TypeVar("K")


def pick(place: Any, label: str, names: Mapping[K, str], first: K, key: str, **more: Any) -> K:
    """Buttons of which one is always pressed, at the beginning the ``first``."""
    chosen = place.segmented_control(
        label, list(names), default=first, format_func=names.__getitem__, required=True, key=key, **more
    )
    return first if chosen is None else cast(K, chosen)


def several(place: Any, label: str, names: Mapping[K, str], first: Iterable[K], key: str, **more: Any) -> list[K]:
    """Buttons of which any number is pressed, at the beginning the ``first``."""
    return list(
        place.pills(
            label,
            list(names),
            selection_mode="multi",
            default=list(first),
            format_func=names.__getitem__,
            key=key,
            **more,
        )
    )


def follow_link(parameter: str, key: str, places: Mapping[str, Any]) -> None:
    """Choose under a key what the address names, once: the list stays free to choose, and another link is followed.

    Args:
        parameter: of the address.
        key: of the widget, drawn after this.
        places: what to choose, by what the address may name.
    """
    named, followed = str(st.query_params.get(parameter, "")), f"{key}_followed"
    if named in places and st.session_state.get(followed) != named:
        st.session_state.update({key: places[named], followed: named})


def compressions(place: Any, first: Sequence[int], key: str) -> list[int]:
    """Several of the usual rates, in whole percent."""
    rates = [5, 10, 15, 20, 25, 30, 40, 50]
    return list(place.multiselect("Compressions", rates, default=first, format_func=lambda rate: f"{rate} %", key=key))


def one_of(place: Any, words: str, labels: Mapping[K, str], key: str, *, first: int = 0, **more: Any) -> K:
    """A list to choose one thing from; the choice stays when its label changes.

    Streamlit knows what is chosen by its label alone, and goes back to the first thing where a job has meanwhile got
    another state or a second one has got the same name.

    Args:
        place: Streamlit or a container.
        labels: of all things.
        key: of the widget.
        first: place of what is chosen at the beginning.
    """
    chosen: Any = st.session_state.get(key)
    changed = _labelled_anew(labels, key)
    if chosen in labels and changed(chosen):
        st.session_state[key] = chosen
    found: K = place.selectbox(
        words,
        list(labels),
        index=0 if key in st.session_state else first,
        format_func=lambda name: labels.get(name, str(name)),
        key=key,
        **more,
    )
    return found


def some_of(
    place: Any, words: str, labels: Mapping[K, str], key: str, *, first: Sequence[K] = (), **more: Any
) -> list[K]:
    """A list to choose several things from, which keeps its choice as :func:`one_of` does; takes the same."""
    fresh = key not in st.session_state
    chosen = [name for name in st.session_state.get(key, ()) if name in labels]
    changed = _labelled_anew(labels, key)
    if any(changed(name) for name in chosen):
        st.session_state[key] = chosen
    found: list[K] = place.multiselect(
        words,
        list(labels),
        default=list(first) if fresh else None,
        format_func=lambda name: labels.get(name, str(name)),
        key=key,
        **more,
    )
    return found


def _labelled_anew(labels: Mapping[Any, str], key: str) -> Callable[[Any], bool]:
    """Whether a thing's label is another one than when the list was drawn last; what is known is now this."""
    known = f"{key}_labels"
    before: Mapping[Any, str] = st.session_state.get(known, {})
    st.session_state[known] = dict(labels)
    return lambda name: before.get(name) != labels[name]


def method_settings(entry: MethodEntry, preset: str, prefix: str, changed: Callable[[], None]) -> dict[str, Any]:
    """Widgets for every setting of a method; returns the values that differ from the preset.

    Args:
        preset: its preset, the source of the defaults.
        prefix: of the widgets' keys, which are also the query parameters.
    """
    base = entry.settings(preset or None)
    values = {}
    infos = fields_of(entry.settings_class)
    if not infos:
        st.caption("This method has no settings.")
    columns = st.columns(2)
    for index, info in enumerate(infos):
        default = getattr(base, info.name)
        with columns[index % 2]:
            value = widget(info, default, f"{prefix}_{entry.name}_{preset}_{info.name}", changed)
        if value != default:
            values[info.name] = value
    return values


def widget(info: FieldInfo, default: Any, key: str, changed: Callable[[], None] | None) -> Any:
    """The widget of one setting; None for ``changed`` inside a form, where only its button may call back."""
    shared: dict[str, Any] = {"help": info.help, "key": key, "on_change": changed, "bind": "query-params"}
    if info.type is bool:
        return st.toggle(info.label, value=bool(default), **shared)
    if info.choices:
        options = list(info.choices)
        return st.selectbox(info.label, options, index=options.index(default), **shared)
    if info.type is int:
        low = None if info.minimum is None else int(info.minimum)
        high = None if info.maximum is None else int(info.maximum)
        return st.number_input(info.label, low, high, int(default), step=1, **shared)
    if info.type is float:
        least = None if info.minimum is None else float(info.minimum)
        most = None if info.maximum is None else float(info.maximum)
        return st.number_input(
            info.label, least, most, float(default), step=_step(float(default)), format="%.6g", **shared
        )
    return st.text_input(info.label, value=str(default), **shared)


def rate_slider(place: Any, words: str) -> int:
    """The compression slider that pages share, in whole percent; ``place`` is Streamlit or a container."""
    rate = place.slider(
        "Compression",
        1,
        LARGEST_RATE,
        state.DEFAULT_RATE,
        format="%d %%",
        key=state.RATE,
        bind="query-params",
        help=words,
    )
    return min(max(int(rate), 1), LARGEST_RATE)


def rate_choice(place: Any, label: str, rates: Sequence[int], key: str) -> int:
    """Buttons for some rates in whole percent; the usual one is chosen where it is among them."""
    usual = state.DEFAULT_RATE if state.DEFAULT_RATE in rates else rates[0]
    return pick(place, label, {rate: f"{rate} %" for rate in rates}, usual, key, bind="query-params")


def storage(
    key: str, changed: Callable[[], None] | None, *, linked: bool = True, first: Storage = DEFAULT_STORAGE
) -> Storage:
    """How low-rank layers are stored and counted.

    Args:
        key: of the widget and, where it is ``linked``, of the query parameter.
        changed: called when the user chooses another one; None inside a form.
        linked: whether the link says it.
        first: what is chosen where nothing else is.
    """
    names = list(LAWS)
    bound: dict[str, Any] = {"bind": "query-params"} if linked else {}
    chosen = st.segmented_control(
        "Storage",
        names,
        default=None if key in st.session_state and not linked else first,
        format_func=lambda name: LAWS[name].label,
        required=True,
        key=key,
        on_change=changed,
        help="  \n".join(f"**{law.label}**: {law.summary}" for law in LAWS.values()),
        **bound,
    )
    return LAWS[chosen or first].name


def rank_multiple(key: str, changed: Callable[[], None]) -> int:
    """What ranks are multiples of."""
    chosen: int = st.selectbox(
        "Ranks in multiples of",
        RANK_MULTIPLES,
        key=key,
        on_change=changed,
        bind="query-params",
        help="Fast kernels want ranks that are multiples of 8 or more. The larger the multiple, the less finely the "
        "budget is given away, so the plan loses a little.",
    )
    return chosen


def _step(default: float) -> float:
    """The power of ten just below the default: 0.03 is changed by 0.01."""
    return 0.01 if default == 0 else 10.0 ** math.floor(math.log10(abs(default)))


def calibration(prefix: str, changed: Callable[[], None]) -> CalibrationSpec:
    """Text, windows and seed of the calibration."""
    base = CalibrationSpec()
    texts = st.text_input(
        "Calibration texts",
        ", ".join(base.texts),
        key=f"{prefix}_texts",
        on_change=changed,
        bind="query-params",
        help="Built-in texts (wiki, c4), paths of files (text, JSON lines, JSON, CSV, Parquet; FILE#field=NAME for "
        "another field than text), hub data sets, or generated (what the model itself writes), separated by commas.",
    )
    left, middle, right = st.columns(3)
    shared: dict[str, Any] = {"on_change": changed, "bind": "query-params"}
    windows = left.number_input("Windows", 1, 100_000, base.windows, key=f"{prefix}_windows", **shared)
    window = middle.number_input("Tokens per window", 8, 32_768, base.window, key=f"{prefix}_window", **shared)
    seed = right.number_input("Seed", 0, 2**31 - 1, base.seed, key=f"{prefix}_seed", **shared)
    return CalibrationSpec(_names(texts, "calibration"), int(windows), int(window), int(seed))


def evaluation(prefix: str) -> EvaluationSpec:
    """Texts, windows and tasks of the measurements."""
    base = EvaluationSpec()
    texts = st.text_input(
        "Texts for perplexity",
        ", ".join(base.texts),
        key=f"{prefix}_texts",
        help="gensim and c4 are built in (report parts, never calibrated on); or paths of files, separated by commas.",
    )
    tasks = st.multiselect(
        "Zero-shot tasks",
        list(TASKS),
        default=["arc_easy", "piqa"],
        key=f"{prefix}_tasks",
        accept_new_options=True,
        help="The listed ones are in the starter pack and need no network; any task that lm-eval knows can be typed.",
    )
    left, middle, right = st.columns(3)
    window = left.number_input("Tokens per window", 8, 32_768, base.window, key=f"{prefix}_window")
    windows = middle.number_input(
        "Windows per text", 0, 100_000, base.max_windows, key=f"{prefix}_windows", help="0: all"
    )
    items = right.number_input("Items per task", 0, 100_000, base.items, key=f"{prefix}_items", help="0: all")
    return EvaluationSpec(
        texts=_names(texts, "evaluation"),
        window=int(window),
        max_windows=int(windows),
        tasks=tuple(str(task) for task in tasks),
        items=int(items),
    )


def _names(text: str, what: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if not names:
        raise TextError(f"No {what} text is named.", "Name at least one, for example c4.")
    for name in names:
        require_known(name)
    found = tuple(absolute(name) if is_file(name) else name for name in names)
    if not read_only():
        for name in filter(is_file, found):
            _preview(name)
    return found


def _preview(name: str) -> None:
    """What was understood of a file, or why it cannot be used, before anything is computed from it."""
    try:
        words = read_file(name).words
    except TextError as error:
        st.warning(escaped(str(error)), icon=":material/description:")
    else:
        st.caption(f":material/description: {escaped(f'{text_label(name)}: {words}')}")
