"""Votes: one a run, counted against chance, exported; and losses in words."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from lrc_core.kinds.generate import MOST_ANSWERS
from lrc_core.quality.plain_words import Loss, accuracy_loss, difference_words, surprise
from lrc_core.quality.rows import Scores
from lrc_core.quality.votes import SKIPPED, TIE, Vote, against, keep_vote, read_votes, tally, votes_csv
from lrc_core.quality.votes import votes_sentence as votes_in_words

LLRC, UNIFORM = "llrc at 20 %", "uniform at 20 %"


def vote(number: int, chosen: str, *answers: str) -> Vote:
    names = answers or (LLRC, "dense")
    place = names.index(chosen) if chosen in names else -1
    return Vote(1e9 + number, f"generate-{number:012d}", "starter", 'Why is\nthe sky "blue"?', names, chosen, place)


def test_votes_survive_and_the_first_on_a_run_stands(tmp_path: Path) -> None:
    path = tmp_path / "home" / "votes.jsonl"
    assert read_votes(path) == []
    assert keep_vote(path, vote(1, "dense")) and keep_vote(path, vote(2, SKIPPED))
    assert not keep_vote(path, vote(1, LLRC)), "a revealed run cannot be judged again"
    with path.open("a") as file:
        file.write('damaged\n{"at": 1}\n')
    assert read_votes(path) == [vote(1, "dense"), vote(2, SKIPPED)]


def test_counts_against_chance() -> None:
    votes = [vote(n, "dense") for n in range(6)] + [vote(6, LLRC), vote(7, TIE), vote(8, SKIPPED)]
    dense, llrc = tally(votes)
    assert (dense.who, dense.shown, dense.chosen, dense.ties, dense.expected) == ("dense", 8, 6, 1, 3.5)
    assert (llrc.chosen, llrc.expected) == (1, 3.5)
    assert against(votes, "dense", LLRC) == (6, 1, pytest.approx(2 * (1 + 7) / 2**7))
    said = votes_in_words(votes)
    assert said.startswith("8 votes, 1 of them") and "p = 0.12" in said and "more than chance" not in said
    assert "more than chance" in votes_in_words([vote(n, "dense") for n in range(6)])
    assert not re.search(r"\d", votes_in_words([vote(1, SKIPPED)]))


def test_four_answers_share_the_chance() -> None:
    votes = [vote(n, LLRC, LLRC, "dense", UNIFORM, "strs at 20 %") for n in range(4)]
    assert {entry.who: entry.expected for entry in tally(votes)}["dense"] == 1.0


def test_csv_round_trips() -> None:
    rows = list(csv.DictReader(io.StringIO(votes_csv([vote(1, "dense"), vote(2, TIE)]))))
    assert rows[0]["prompt"] == vote(1, "dense").prompt and "\n" in rows[0]["prompt"]
    assert (rows[0]["answer_2"], rows[0]["chosen"], rows[0]["place"]) == ("dense", "dense", "2")
    assert (rows[1]["chosen"], rows[1]["place"]) == ("tie", "")


def test_every_answer_has_a_column_however_many_were_asked() -> None:
    names = ("dense", *(f"llrc at {10 * number} %" for number in range(1, MOST_ANSWERS)))
    rows = list(csv.DictReader(io.StringIO(votes_csv([vote(1, "dense"), vote(2, names[-1], *names)]))))
    assert tuple(rows[1][f"answer_{number + 1}"] for number in range(MOST_ANSWERS)) == names
    assert rows[1][f"answer_{rows[1]['place']}"] == names[-1]
    assert rows[0][f"answer_{MOST_ANSWERS}"] == "", "who asked fewer leaves the last ones empty"


def row(run_id: str, **accuracies: float) -> dict[str, Any]:
    scores = {
        task: {"acc": value, "acc_stderr": 0.04, "acc_norm": None, "n": 100} for task, value in accuracies.items()
    }
    return {"run_id": run_id, "zero_shot": scores, "perplexity": {"gensim": {"value": 20.0 if run_id == "a" else 50.0}}}


def facts(sentence: str) -> tuple[str, ...]:
    """What a sentence on accuracies must say: how many questions, which way, how sure, and how wide the interval is."""
    found = [
        re.search(words, sentence)
        for words in (
            r"([\d.]+|as many)(?= (more|fewer) of \d+)|as many",
            "more of|fewer of",
            "more than chance|too few",
            r"±[^)]+|up to \d+",
        )
    ]
    return tuple(match[0] if match else "" for match in found)


def test_two_samples_where_single_outcomes_are_gone() -> None:
    loss = accuracy_loss(row("b", arc_easy=0.30, piqa=0.62), row("a", arc_easy=0.34, piqa=0.62, boolq=0.5))
    assert loss is not None
    assert loss.difference == pytest.approx(-2.0) and loss.questions == 200 and not loss.paired
    assert loss.stderr == pytest.approx(4.0), "each mean has 2 sqrt(2), so that their difference has 4"
    assert facts(difference_words(loss)) == ("2", "fewer of", "too few", "up to 10")


def test_paired_where_the_same_questions_can_be_compared(tmp_path: Path) -> None:
    for run_id, items in (("a", [1] * 60 + [0] * 40), ("b", [1] * 45 + [0] * 55)):
        (tmp_path / run_id).mkdir()
        content = {"windows": {}, "tasks": {"arc_easy": {"acc": sum(items) / 100, "items": {"acc": items}}}}
        (tmp_path / run_id / "scores.json").write_text(json.dumps(content))
    loss = accuracy_loss(row("b", arc_easy=0.45), row("a", arc_easy=0.60), Scores(tmp_path))
    assert loss is not None and loss.paired
    assert loss.difference == pytest.approx(-15.0) and loss.stderr == pytest.approx(3.589, abs=0.001)
    assert facts(difference_words(loss)) == ("15", "fewer of", "more than chance", "± 7 at 95 %")


@pytest.mark.parametrize(("difference", "stderr"), [(-8.0, 4.7), (-0.5, 3.0), (3.0, 4.0), (0.0, 5.0)])
def test_too_few_questions_say_what_loss_is_possible(difference: float, stderr: float) -> None:
    """No all-clear where zero lies within the error: what is said is the far end of the interval."""
    loss = Loss(difference, stderr, 200, True)
    said = difference_words(loss)
    assert "within error" not in said and "200 questions" in said
    worst = int(re.search(r"up to (\d+) fewer", said)[1])  # type: ignore[index]
    assert worst == pytest.approx(1.96 * stderr - difference, abs=0.51)


def test_which_accuracy_counts_is_one_rule_and_the_other_one_is_said() -> None:
    """Normalised wherever the task has it, kinder or not; where plain accuracy differs, the words say so."""
    scores = {"n": 100, "acc_stderr": 0.05, "acc_norm_stderr": 0.05}
    dense = {"zero_shot": {"arc_easy": {**scores, "acc": 0.49, "acc_norm": 0.36}}}
    for plain, normalised in ((0.45, 0.36), (0.49, 0.30)):
        row = {"zero_shot": {"arc_easy": {**scores, "acc": plain, "acc_norm": normalised}}}
        loss = accuracy_loss(row, dense)
        assert loss is not None and loss.difference == pytest.approx(100 * (normalised - 0.36))
        assert loss.plain == pytest.approx(100 * (plain - 0.49))
        assert "without normalising" in difference_words(loss)
    same = accuracy_loss({"zero_shot": {"x": {"acc": 0.4, "acc_stderr": 0.05}}}, {"zero_shot": {"x": {"acc": 0.5}}})
    assert same is not None and same.plain is None


def test_the_other_accuracy_has_an_error_of_its_own(tmp_path: Path) -> None:
    """Over the same questions, as the one that counts; none is told of without it."""
    plain = {"a": [1] * 50 + [0] * 50, "b": [1] * 35 + [0] * 65}
    normalised = {"a": [1] * 36 + [0] * 64, "b": [1] * 36 + [0] * 64}
    for run_id in plain:
        items = {"acc": plain[run_id], "acc_norm": normalised[run_id]}
        scores = {"items": items} | {name: sum(found) / 100 for name, found in items.items()}
        (tmp_path / run_id).mkdir()
        (tmp_path / run_id / "scores.json").write_text(json.dumps({"windows": {}, "tasks": {"arc_easy": scores}}))
    shares = {name: {"acc": sum(items) / 100, "acc_norm": 0.36, "n": 100} for name, items in plain.items()}
    one, other = ({"run_id": name, "zero_shot": {"arc_easy": shares[name]}} for name in ("b", "a"))
    loss = accuracy_loss(one, other, Scores(tmp_path))
    assert loss is not None and (loss.difference, loss.plain) == (0.0, pytest.approx(-15.0))
    assert loss.plain_stderr == pytest.approx(3.589, abs=0.001), "15 discordant of 100"
    _, _, said = difference_words(loss).partition("normalising")
    assert facts(said)[-2:] == ("more than chance", "± 7 at 95 %")
    unknown = Loss(-1.0, 2.0, 100, False, plain=-4.0)
    assert "not known" in difference_words(unknown) and "more than chance" not in difference_words(unknown)


def test_other_words() -> None:
    better = facts(difference_words(Loss(3.2, 1.0, 100, True)))
    assert better == ("3.2", "more of", "more than chance", "± 2 at 95 %")
    even = facts(difference_words(Loss(0.0, 0.2, 100, True)))
    assert even == ("as many", "", "too few", "up to 1"), "no sample excludes every loss"
    assert "not known" in difference_words(Loss(-4.0, None, 1, False))
    assert not re.search(r"\d|more|fewer", difference_words(None))
    assert re.match(r"2\.5 times .* gensim$", surprise(row("b"), row("a")))
    assert difference_words(Loss(-4.0, None, 1, False), "It").startswith("It answers 4 ")
    assert accuracy_loss(row("b"), row("a")) is None
