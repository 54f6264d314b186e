from __future__ import annotations

import json
import logging
import random
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lrc_core.errors import CancelledError, EvaluationError, NumericalError
from lrc_core.evaluate import likelihood, zero_shot
from lrc_core.evaluate.likelihood import continuation_likelihoods
from lrc_core.models.pack.starter import TASKS
from lrc_core.types import Progress
from tests.factories.tiny_models import FAMILIES, POSITIONS, tiny_model, tiny_tokenizer


def documents(task: str, count: int = 12) -> list[dict[str, Any]]:
    """Made-up items in the pack's form; those of winogrande differ in the context instead of the continuation."""
    words = ["rank", "a layer", "the model", "budget", "small values of it", "every", "keeps"]
    draw = random.Random(task)
    found = []
    for i in range(count):
        picked = draw.sample(words, 2 if task == "winogrande" else 4)
        question = f"Question {i}: {' '.join(draw.sample(words, draw.randint(1, 4)))}?"
        if task == "winogrande":
            contexts, continuations = [f"{question} {word}" for word in picked], [" is what it was."] * 2
        else:
            contexts, continuations = [question] * 4, [f" {word}" for word in picked]
        gold = draw.randrange(len(picked))
        found.append({"doc_id": i, "contexts": contexts, "continuations": continuations, "gold": gold})
    return found


@pytest.fixture
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tasks"
    folder.mkdir()
    for task in TASKS:
        (folder / f"{task}.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in documents(task)))
    monkeypatch.setattr(zero_shot, "ensure_tasks", lambda on_progress, should_stop: folder)
    return folder


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was attempted")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def by_hand(model: Any, tokenizer: Any, context: str, continuation: str) -> float:
    """Log-probability of a continuation, the whole text in one run and nothing else."""
    start, ids = tokenizer(context)["input_ids"], tokenizer(context + continuation)["input_ids"]
    with torch.no_grad():
        logs = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(logs[t - 1, ids[t]].item() for t in range(len(start), len(ids)))


def choices_by_hand(model: Any, tokenizer: Any, task: str) -> dict[str, tuple[int, ...]]:
    right: dict[str, list[int]] = {"acc": [], "acc_norm": []}
    for doc in documents(task):
        pairs = list(zip(doc["contexts"], doc["continuations"], strict=True))
        values = np.array([by_hand(model, tokenizer, *pair) for pair in pairs])
        lengths = np.array([len(continuation) - 1 for _, continuation in pairs])
        right["acc"].append(int(values.argmax() == doc["gold"]))
        right["acc_norm"].append(int((values / lengths).argmax() == doc["gold"]))
    return {metric: tuple(values) for metric, values in right.items()}


@pytest.mark.parametrize("add_bos", [False, True])
@pytest.mark.parametrize("task", ["arc_easy", "winogrande"])
def test_agrees_with_log_likelihoods_by_hand(task: str, add_bos: bool, pack: Path, no_network: None) -> None:
    model, tokenizer = tiny_model("llama"), tiny_tokenizer(add_bos=add_bos)
    score = zero_shot.zero_shot(model, tokenizer, [task], items=0)[task]
    expected = choices_by_hand(model, tokenizer, task)
    assert score.items == expected
    assert (score.acc, score.acc_norm) == (np.mean(expected["acc"]), np.mean(expected["acc_norm"]))
    assert score.acc_stderr == pytest.approx(np.std(expected["acc"], ddof=1) / np.sqrt(12))
    assert score.acc_norm_stderr == pytest.approx(np.std(expected["acc_norm"], ddof=1) / np.sqrt(12))
    assert score.to_dict() == {
        "acc": score.acc,
        "acc_stderr": score.acc_stderr,
        "acc_norm": score.acc_norm,
        "acc_norm_stderr": score.acc_norm_stderr,
        "n": 12,
    }


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_shared_contexts_change_nothing(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(family)
    draw = random.Random(0)
    pairs: list[tuple[list[int], list[int]]] = []
    for _ in range(9):
        context = [draw.randrange(4, 99) for _ in range(draw.randint(1, 20))]
        for _ in range(draw.randint(1, 4)):
            pairs.append((context, [draw.randrange(4, 99) for _ in range(draw.randint(1, 6))]))
    draw.shuffle(pairs)
    monkeypatch.setattr(likelihood, "_limits", lambda model: (90, 60))
    done: list[int] = []
    with torch.no_grad():
        shared = continuation_likelihoods(model, pairs, on_batch=done.append)
        monkeypatch.setattr(likelihood._Group, "shared", False)
        whole = continuation_likelihoods(model, pairs)
        for (context, continuation), (value, _), (other, _) in zip(pairs, shared, whole, strict=True):
            logs = model(input_ids=torch.tensor([context + continuation])).logits[0].log_softmax(-1)
            expected = sum(logs[len(context) - 1 + i, token].item() for i, token in enumerate(continuation))
            assert value == pytest.approx(expected, rel=1e-4)
            assert other == pytest.approx(expected, rel=1e-4)
    assert [greedy for _, greedy in shared] == [greedy for _, greedy in whole]
    assert done[0] == 0
    assert done == sorted(set(done))


def test_the_greedy_continuation_is_known_as_such() -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        token = int(model(input_ids=torch.tensor([[5, 6, 7]])).logits[0, -1].argmax())
        found = continuation_likelihoods(model, [([5, 6, 7], [token]), ([5, 6, 7], [token + 1])])
    assert [greedy for _, greedy in found] == [True, False]


def test_a_text_beyond_the_models_positions_loses_its_beginning() -> None:
    model = tiny_model("gpt2")
    ids = [4 + i % 90 for i in range(POSITIONS + 40)]
    with torch.no_grad():
        whole = continuation_likelihoods(model, [(ids, [9, 8, 7]), (ids, [9, 9, 7])])
        kept = continuation_likelihoods(model, [(ids[-(POSITIONS - 2) :], [9, 8, 7])])
    assert whole[0][0] == pytest.approx(kept[0][0], rel=1e-4)


def test_the_sample_of_items_is_seeded(pack: Path) -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    everything = zero_shot.zero_shot(model, tokenizer, ["piqa"], items=0)["piqa"]

    def sampled(seed: int) -> zero_shot.TaskScore:
        return zero_shot.zero_shot(model, tokenizer, ["piqa"], items=5, seed=seed)["piqa"]

    assert everything.n == 12
    assert sampled(1) == sampled(1)
    chosen = sorted(random.Random("1 piqa").sample(range(12), 5))
    assert sampled(1).items["acc"] == tuple(everything.items["acc"][i] for i in chosen)
    assert zero_shot.zero_shot(model, tokenizer, ["piqa"], items=99)["piqa"] == everything


OWN_TASK = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{answers}}}}"
doc_to_target: "{{{{right}}}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""


def own_tasks(folder: Path, *names: str) -> str:
    folder.mkdir()
    data = folder / "items.jsonl"
    rows = [{"question": f"What is {i}?", "answers": ["a rank", "a layer of it"], "right": i % 2} for i in range(6)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in names:
        (folder / f"{name}.yaml").write_text(OWN_TASK.format(name=name, data=data))
    return str(folder)


def test_the_users_own_task_files(tmp_path: Path, pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    model, tokenizer = tiny_model(), tiny_tokenizer()
    path = own_tasks(tmp_path / "own", "my_task", "piqa")
    scores = zero_shot.zero_shot(model, tokenizer, ["my_task", "piqa", "boolq"], items=4, include_path=path)
    mine = scores["my_task"]
    assert list(scores) == ["my_task", "piqa", "boolq"]
    assert (mine.n, mine.acc_norm, mine.acc_norm_stderr) == (4, None, None)
    chosen = sorted(random.Random("0 my_task").sample(range(6), 4))
    expected = []
    for i in chosen:
        values = [by_hand(model, tokenizer, f"What is {i}?", f" {text}") for text in ("a rank", "a layer of it")]
        expected.append(int(np.argmax(values) == i % 2))
    assert mine.items == {"acc": tuple(expected)}
    assert scores["piqa"].acc_norm is None  # the user's piqa, not the pack's
    assert scores["boolq"].acc_norm is not None


def test_a_group_has_one_score_or_its_members_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    path = own_tasks(tmp_path / "own", "one", "two")
    members = "\ntask: [one, two]\n"
    mean = "aggregate_metric_list:\n  - metric: acc\n    weight_by_size: true\n"
    (tmp_path / "own" / "both.yaml").write_text(f"group: both{members}{mean}")
    (tmp_path / "own" / "apart.yaml").write_text(f"group: apart{members}")
    own = zero_shot.TaskManager(include_path=path, include_defaults=False)
    monkeypatch.setattr(zero_shot, "_whole_index", lambda include_path: own)
    scores = zero_shot.zero_shot(tiny_model(), tiny_tokenizer(), ["both", "apart"], items=0, include_path=path)
    assert set(scores) == {"both", "one", "two"}
    both, one, two = scores["both"], scores["one"], scores["two"]
    assert (both.n, one.n, two.n, both.items) == (12, 6, 6, {})
    assert both.acc is not None
    assert both.acc == pytest.approx(((one.acc or 0) + (two.acc or 0)) / 2)


def test_a_folder_of_task_files_that_is_not_there() -> None:
    with pytest.raises(EvaluationError, match="nowhere"):
        zero_shot.zero_shot(tiny_model(), tiny_tokenizer(), ["piqa"], include_path="/nowhere")


def small_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index of two tasks in place of lm-eval's fourteen thousand, which take long to read."""
    manager = zero_shot.TaskManager(include_defaults=False)
    manager._all_tasks = ["arc_challenge_mt", "lambada"]
    monkeypatch.setattr(zero_shot, "_whole_index", lambda include_path: manager)


def test_an_unknown_task_and_one_out_of_reach(monkeypatch: pytest.MonkeyPatch, pack: Path) -> None:
    small_index(monkeypatch)
    model, tokenizer = tiny_model(), tiny_tokenizer()
    with pytest.raises(EvaluationError, match=r"arc_esy.*Did you mean arc_easy"):
        zero_shot.zero_shot(model, tokenizer, ["piqa", "arc_esy"])
    with pytest.raises(EvaluationError, match=r"'xyz'.*need no hub"):
        zero_shot.zero_shot(model, tokenizer, ["xyz"])
    with pytest.raises(EvaluationError, match=r"lambada cannot .* reach"):
        zero_shot.zero_shot(model, tokenizer, ["lambada"])


def test_a_damaged_item_file_says_so(pack: Path) -> None:
    for content in ("", "{"):
        (pack / "piqa.jsonl").write_text(content)
        with pytest.raises(EvaluationError, match=r"piqa\.jsonl.*fetched again"):
            zero_shot.zero_shot(tiny_model(), tiny_tokenizer(), ["piqa"])


def test_nan_is_not_scored(pack: Path) -> None:
    model = tiny_model()
    model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(NumericalError, match="piqa"):
        zero_shot.zero_shot(model, tiny_tokenizer(), ["piqa"])


def test_cancel_progress_and_silence(pack: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    model.train()
    seen: list[Progress] = []
    state = random.getstate(), torch.get_rng_state().tolist(), logging.getLogger("lm_eval").level, tokenizer.pad_token
    zero_shot.zero_shot(model, tokenizer, ["piqa", "boolq"], items=3, on_progress=seen.append)
    assert capfd.readouterr() == ("", "")
    assert {tick.phase for tick in seen} == {"zero-shot: piqa", "zero-shot: boolq"}
    assert (seen[-1].step, seen[-1].total) == (12, 12)
    with pytest.raises(CancelledError):
        zero_shot.zero_shot(model, tokenizer, ["piqa"], should_stop=lambda: True)
    # Nothing is left behind: random states, log levels, the tokenizer, the model's mode.
    after = random.getstate(), torch.get_rng_state().tolist(), logging.getLogger("lm_eval").level, tokenizer.pad_token
    assert after == state
    assert model.training


def test_the_callback_may_print(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def show(tick: Progress) -> None:
        sys.stderr.write(tick.phase)

    zero_shot.zero_shot(tiny_model(), tiny_tokenizer(), ["piqa"], items=2, on_progress=show)
    assert "zero-shot: piqa" in capsys.readouterr().err


def test_no_tasks_no_scores() -> None:
    assert zero_shot.zero_shot(tiny_model(), tiny_tokenizer(), []) == {}


@pytest.mark.pack
def test_every_task_of_the_pack_runs() -> None:
    scores = zero_shot.zero_shot(tiny_model(), tiny_tokenizer(), TASKS, items=3)
    assert {name: score.n for name, score in scores.items()} == dict.fromkeys(TASKS, 3)
