"""The class's answers to the quiz: counted without names, for a class alone, and never so few that one is known."""

from __future__ import annotations

import pytest

from pages.ui import classroom
from pages.ui.learn.quiz import questions, tally
from tests.pages.conftest import text_of


@pytest.fixture
def answers(monkeypatch):
    found = tally.ClassAnswers()
    monkeypatch.setattr(tally, "CLASS", found)
    return found


def test_the_last_answers_of_a_browser_count_and_few_are_not_shown(answers):
    answers.keep(0, "a", (0, 1))
    answers.keep(0, "b", (0, 2))
    assert not answers.of(0, 0), "two answers: each would know the other's"
    answers.keep(0, "c", (1, 2))
    answers.keep(1, "d", (2, 2))
    answers.keep(0, "c", (0, 1))
    assert answers.of(0, 0) == {0: 3} and answers.of(0, 1) == {1: 2, 2: 1} and not answers.of(1, 0)


def test_it_forgets_the_first_of_very_many(answers, monkeypatch):
    monkeypatch.setattr(tally, "_MOST", 5)
    for number in range(9):
        answers.keep(0, str(number), (number % 3,))
    assert answers.of(0, 0).total() == 5


def test_a_class_sees_its_counts_once_it_has_answered_and_others_see_none(open_page, answers, monkeypatch):
    right = [question.right for question in questions.questions()]
    for name in "abc":
        answers.keep(0, name, [0] * len(right))

    def checked():
        app = open_page("learn", learn_step="8")
        assert "The class" not in text_of(app)
        for number, option in enumerate(right):
            app.radio(key=f"learn_answer_{number}").set_value(option)
        app.run()
        app.button(key="learn_check").click().run()
        return text_of(app)

    assert "The class" not in checked() and answers.of(0, 0).total() == 3, "no class, nothing counted"
    monkeypatch.setenv(classroom.CLASS, "http://192.168.7.9:8501")
    assert "The class, 4 answers" in checked() and answers.of(0, 0).total() == 4
