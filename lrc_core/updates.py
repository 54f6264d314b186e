"""The kinds of update that a plan's factors can get, each with its settings. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lrc_core.errors import SettingsError
from lrc_core.plan import PAIR
from lrc_core.registry import Appearance, Registry, UpdateEntry
from lrc_core.settings import build, setting


@dataclass(frozen=True)
class UpdateSettings:
    """Settings of the closed-form update of a plan's factors."""

    kind: str = setting(
        "left",
        "What is updated",
        "left: the left factors, given the right ones (SVD-LLM). both: both factors, which lowers the error of every "
        "layer further and leans more on the calibration text.",
        choices=("left", "both"),
    )
    target: str = setting(
        "dense",
        "Target",
        "dense: the output that the layer has in the dense model, so that errors of earlier layers are corrected "
        "instead of passed on. compressed: the dense weight on the inputs as they come (SVD-LLM), at half the time.",
        choices=("dense", "compressed"),
    )
    damping: float = setting(
        1e-4,
        "Damping",
        "Share of the mean input energy that pulls towards the dense weight where the text says little; raised tenfold "
        "until the moments can be inverted.",
        minimum=0.0,
        maximum=1.0,
    )
    use_windows: int = setting(
        0,
        "Windows used",
        "Calibration windows that both models read; 0 for all. Fewer are faster; keep several tokens for every input "
        "of the widest layer.",
        minimum=0,
    )


@dataclass(frozen=True)
class TuningSettings:
    """Settings of tuning the factors of a plan."""

    kind: str = setting(
        "tuned",
        "What is updated",
        "tuned: both factors of every low-rank layer, by gradient steps.",
        choices=("tuned",),
    )
    text_weight: float = setting(
        0.5,
        "Text weight",
        "Of the next-token loss on the calibration text beside the divergence from the dense model's predictions. The "
        "text also fits the model to its kind, as any tuning on text does; 0 only takes back what compression changed.",
        minimum=0.0,
        maximum=1000.0,
    )
    rate: float = setting(
        0.0007,
        "Learning rate",
        "Of Adam, relative to the root mean square of the factor that moves; it rises over the first steps, then "
        "falls in a line to zero.",
        minimum=1e-6,
        maximum=1.0,
    )
    documents: int = setting(512, "Training windows", "How many token windows there are to learn from.", minimum=1)
    window: int = setting(256, "Window", "Tokens in a training window.", minimum=2, maximum=65536)
    batch: int = setting(4, "Batch", "Windows in a step.", minimum=1, maximum=1024)
    passes: int = setting(1, "Passes", "How often the training windows are gone through.", minimum=1, maximum=1000)
    check_windows: int = setting(
        16,
        "Check windows",
        "Windows held back from training: where tuning did not lower the loss on them, the factors stay as they were. "
        "0: the tuned ones are taken.",
        minimum=0,
    )


@dataclass(frozen=True)
class BlockwiseSettings:
    """Settings of refining the factors of a plan block by block."""

    kind: str = setting(
        "blockwise",
        "What is updated",
        "blockwise: both factors of every low-rank layer, by gradient steps, one block after the other.",
        choices=("blockwise",),
    )
    rate: float = setting(
        0.002,
        "Learning rate",
        "Of Adam, relative to the root mean square of the factor that moves; it rises over the first steps of a block, "
        "then falls in a line to zero.",
        minimum=1e-6,
        maximum=1.0,
    )
    documents: int = setting(256, "Training windows", "How many token windows there are to learn from.", minimum=1)
    window: int = setting(256, "Window", "Tokens in a training window.", minimum=2, maximum=65536)
    batch: int = setting(4, "Batch", "Windows in a step.", minimum=1, maximum=1024)
    passes: int = setting(2, "Passes", "How often a block goes through the training windows.", minimum=1, maximum=1000)
    check_windows: int = setting(
        16,
        "Check windows",
        "Windows held back from training: of a block's factors after every pass, those are taken whose output is "
        "nearest on them. 0: nearest on the training windows.",
        minimum=0,
    )


AnyUpdate = UpdateSettings | BlockwiseSettings | TuningSettings
UPDATES: Registry[UpdateEntry] = Registry("update", "look")
LEFT = UPDATES.register(
    UpdateEntry(
        name="left",
        label="Left factors",
        suffix="update",
        title="Update left factors",
        compared="left factors updated",
        summary="Fits the left factors, given the right ones, to what every layer should put out (SVD-LLM); "
        "closed form.",
        report="Factors were then fitted in closed form to what their layers really get.",
        look=Appearance(".", "dash", "circle-open-dot"),
        settings_class=UpdateSettings,
        stage="lrc_core.pipeline.updating:fitted_factors",
    )
)
BOTH = UPDATES.register(
    UpdateEntry(
        name="both",
        label="Both factors",
        suffix="update of both",
        title="Update both factors",
        compared="both factors updated",
        summary="Fits both factors of every layer; closed form, leans more on the calibration text.",
        report=LEFT.report,
        look=Appearance("x", "dot", "circle-x"),
        settings_class=UpdateSettings,
        stage=LEFT.stage,
    )
)
BLOCKWISE = UPDATES.register(
    UpdateEntry(
        name="blockwise",
        label="Refined block by block",
        suffix="block-wise",
        title="Refine the factors block by block",
        compared="factors refined block by block",
        summary="Trains the factors of one block after the other to put out what the dense one does.",
        report="Factors were then trained block by block to put out what the dense blocks do.",
        look=Appearance("|", "longdash", "square"),
        settings_class=BlockwiseSettings,
        stage="lrc_core.pipeline.updating:refined_factors",
        trains=True,
    )
)
TUNED = UPDATES.register(
    UpdateEntry(
        name="tuned",
        label="Tuned factors",
        suffix="tuned",
        title="Tune the factors",
        compared="tuned factors",
        summary="Tunes the factors by gradient steps on the calibration text, at the cost of a short training.",
        report="Factors were then tuned by gradient steps on the calibration text.",
        look=Appearance("+", "dashdot", "cross"),
        settings_class=TuningSettings,
        stage="lrc_core.pipeline.updating:tuned_factors",
        trains=True,
        whole="Tuning factors through the whole model",
    )
)
KINDS = UPDATES.names()
"""What one run does."""
UPDATES.register(
    UpdateEntry(
        name=f"{BLOCKWISE.name}+{TUNED.name}",
        label="Refined, then tuned",
        compared="factors refined block by block, then tuned",
        report="Factors were then trained block by block, and tuned by gradient steps on the calibration text.",
        look=Appearance("-", "longdashdot", "star"),
    )
)
COMPARED = UPDATES.names()
"""What a comparison can ask for: also one after the other."""
NO_UPDATE = "none"
"""How a comparison says that plans are measured as they were allocated."""
UPDATE_LABELS = {NO_UPDATE: "No update", **{entry.name: entry.label for entry in UPDATES}}


def update_settings(values: Mapping[str, Any]) -> AnyUpdate:
    """Complete settings of an update, of the class that its ``kind`` asks for (the first kind where none is named).

    Raises:
        SettingsError: there is no such kind; a setting is unknown or out of range.
    """
    kind = values.get("kind", KINDS[0])
    check_kinds([kind])
    settings: AnyUpdate = build(UPDATES.get(kind).settings_class, values)
    return settings


def check_kinds(kinds: Iterable[Any], known: tuple[str, ...] = KINDS) -> None:
    """Refuse what is no kind of update.

    Raises:
        SettingsError: names the first one.
    """
    for kind in kinds:
        if kind not in known:
            raise SettingsError(f"There is no update {kind!r}.", f"Choose from {', '.join(known)}.")


def update_words(update: str, storage: str = PAIR) -> str:
    """What a label says behind the method's: "", " + update", " + block-wise + tuned", ...; and ", pivots"."""
    parts = update.split("+") if update else ()
    words = "".join(f" + {UPDATES.get(part).suffix if part in UPDATES else part}" for part in parts)
    return words if storage == PAIR else words + ", pivots"
