"""Every number that Learn says in words, against the shipped samples by another way of computing it."""

from __future__ import annotations

import re

import numpy as np
import pytest

from lrc_core.quality.rows import mean_loss
from lrc_core.quality.speeds import pace_of
from lrc_core.results.archive import archive
from lrc_core.results.spectra import spectra_of
from lrc_core.runs.spec import ModelRef
from pages.ui.learn import card, damage, layers, lessons, methods, outputs, picture
from pages.ui.learn.lesson_text import FOLDER, lesson_text


@pytest.fixture(autouse=True)
def shipped(samples, monkeypatch):
    """The samples that ship with the program."""
    monkeypatch.delenv("LRC_SAMPLES")


def numbers(sentence: str) -> list[float]:
    """All numbers of a sentence in order."""
    return [float(found.replace(",", "")) for found in re.findall(r"\d[\d,]*(?:\.\d+)?", sentence)]


@pytest.fixture
def entries():
    return [(found, entry) for found in lessons.lessons(ModelRef(), "layers") for entry in found.content["layers"]]


def test_step_1_has_the_size_of_its_picture():
    assert f"{picture.ROWS} rows, {picture.COLUMNS} columns" in lesson_text("picture").body


def test_step_4_names_a_rank_between_the_measured_ones(entries):
    """The rank of plain truncation for as good an output: between two measured ranks, and where their line meets it."""
    for found, entry in entries:
        layer, plain = found.layer(entry["name"]), entry["output_error"]["svd"]
        for number, rank in enumerate(entry["ranks"]):
            white = entry["output_error"]["whitened"][number]
            said = re.search(r"needs about rank ([\d,]+) \(measured were (\d+) and (\d+)\)",
                             outputs.errors_sentence(entry, layer, number))  # fmt: skip
            if said is None:
                continue
            about, low, high = (float(value.replace(",", "")) for value in said.groups())
            above, below = plain[entry["ranks"].index(int(low))], plain[entry["ranks"].index(int(high))]
            assert below <= white <= above
            if below > 0:
                met = np.exp(np.interp(-np.log(white), [-np.log(above), -np.log(below)], np.log([low, high])))
                assert about == pytest.approx(met, rel=0.06), (entry["name"], rank)  # two digits are said
    at = entries[0][1]["ranks"].index(129)
    assert "about rank 250" in outputs.errors_sentence(entries[0][1], entries[0][0].layer(entries[0][1]["name"]), at)


def test_step_4_never_says_that_the_other_directions_do_not_count(entries):
    """What the leading directions leave to the others is said, with how much lighter one of those is."""
    for _, entry in entries:
        energy = dict(zip(entry["input_energy"]["directions"], entry["input_energy"]["share"], strict=True))
        share, count, every, more, more_count, lighter, rest = numbers(outputs.inputs(entry))[1:8]
        assert energy[count] == pytest.approx(share / 100, abs=0.006)
        assert energy[more_count] == pytest.approx(more / 100, abs=0.006)
        assert rest == pytest.approx(100 - share, abs=1)
        mean_rest = (1 - energy[count]) / (every - count)
        assert lighter == pytest.approx(energy[count] / count / mean_rest, rel=0.06)


@pytest.mark.parametrize("removed", [0.1, 0.2, 0.33])
def test_step_3_ties_lost_energy_to_measured_damage(removed):
    spectra = spectra_of(archive().best_spectra(ModelRef()))
    side = methods.usable(ModelRef())
    said = numbers(damage.damage_sentence(spectra, "whitened", removed, side))
    lost = []
    for layer in spectra.card.layers:
        energy = np.asarray(spectra.values["whitened"][layer.name], dtype=float) ** 2
        m, n = layer.out_features, layer.in_features
        cost = {"pair": lambda k, m=m, n=n: k * (m + n), "pivoted": lambda k, m=m, n=n: k * (m + n - k)}[side.storage]
        rank = max(k for k in range(1, min(m, n) + 1) if cost(k) <= (1 - removed) * layer.params)
        lost.append(100 * energy[rank:].sum() / energy.sum())
    assert said[:4] == pytest.approx([round(100 * removed), len(lost), np.median(lost), max(lost)], abs=0.11)
    rows = {
        (row["method"].partition("+")[0], round(row["keep_target"], 2)): row["perplexity"]["gensim"]["value"]
        for row in side.rows(None)
    }
    assert said[-1] == pytest.approx(rows["uniform", round(1 - said[4] / 100, 2)] / rows["dense", 1.0], rel=0.06)
    assert "no small damage" in damage.damage_sentence(spectra, "whitened", removed, side)
    assert "damage" not in damage.damage_sentence(spectra, "whitened", removed, None)


def test_step_5_adds_up():
    (found, *_) = lessons.lessons(ModelRef(), "sensitivity")
    by_name = found.content["sensitivity"]
    values = sorted((float(by_name[layer.name]["divergence"]) for layer in found.card.layers), reverse=True)
    tenth = len(values) // 10
    share = 100 * sum(values[:tenth]) / sum(value for value in values if value > 0)
    said = numbers(layers.sensitivity_sentence(found))
    assert said[-3:] == pytest.approx([tenth, len(values), share], abs=0.6)


def test_step_8_says_both_paces_and_both_accuracies():
    rows = {(row["method"], row["keep_target"]): row for row in methods.usable(ModelRef()).group.rows}
    dense = rows["dense", 1.0]
    for (method, _), row in rows.items():
        if method == "dense":
            continue
        said = card.cost_sentence(row, dense)
        for name in ("prefill", "decode"):
            pace = pace_of(row, dense, name)
            if pace is None:  # a number format's forward pass is that of 16 bits
                assert "not timed" in said and "pace" not in said
            else:
                assert f"{pace.figure} times" in said
        for name in ("acc_norm", "acc"):
            gap = 100 * np.mean([row["zero_shot"][t][name] - dense["zero_shot"][t][name] for t in row["zero_shot"]])
            assert f"{abs(gap):.2g}" in said or abs(gap) < 0.05, (method, name)
    best = min((row for (method, keep), row in rows.items() if keep == 0.8), key=mean_loss)
    assert methods.lightest(methods.usable(ModelRef()).group, 0.8)["run_id"] == best["run_id"]
    shown = [name for name, *_ in card.entries(rows["llrc", 0.8], dense)]
    assert {"arc_easy, normalised", "arc_easy, plain"} <= set(shown)


def test_one_thing_has_one_name():
    """A direction is introduced in step 1 and is called nothing else behind it."""
    assert "**direction**" in lesson_text("picture").body
    for path in FOLDER.glob("*.md"):
        words = path.read_text(encoding="utf-8").lower()
        assert "component" not in words and "stripe" not in words, path.name


def test_home_does_not_promise_what_half_of_the_layers_refuse():
    """Some matrices need few directions, others about half of them: both are said because both are so."""
    spectra = spectra_of(archive().best_spectra(ModelRef()))
    need = []
    for layer in spectra.card.layers:
        energy = np.cumsum(np.asarray(spectra.values["whitened"][layer.name], dtype=float) ** 2)
        need.append((np.searchsorted(energy, 0.9 * energy[-1]) + 1) / layer.full_rank)
    assert min(need) < 0.1 and np.quantile(need, 0.7) > 0.4


@pytest.mark.parametrize("keep", [0.9, 0.8, 0.7])
def test_step_6_says_why_a_compressed_model_is_better_than_the_dense_one(keep):
    side = methods.usable(ModelRef())
    said, best = methods.beyond(side.group, keep, side.rows(keep)), methods.lightest(side.group, keep)
    text = next(iter(best["perplexity"]))
    dense = next(row for row in side.group.rows if row["method"] == "dense")
    better = best["perplexity"][text]["value"] < dense["perplexity"][text]["value"]
    assert ("fitted to text" in said) == better
