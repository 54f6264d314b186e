"""Which process gets which file of tests: browsers in two at most, nothing left over, also when one dies."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.schedule import BROWSERS, Beside

SHOWN = [f"tests/browser/test_{name}.py::test_{number}" for name in "abcde" for number in range(4)]
PLAIN = [f"tests/core/test_{name}.py::test_{number}" for name in "abcdef" for number in range(4)]


class Process:
    """A worker of pytest-xdist, as its scheduler sees it."""

    def __init__(self) -> None:
        self.shutting_down = False
        self.sent: list[int] = []
        self.gateway = SimpleNamespace(id="a process")

    def send_runtest_some(self, indices: list[int]) -> None:
        self.sent += indices

    def shutdown(self) -> None:
        self.shutting_down = True


def started(tests: list[str], count: int) -> tuple[Beside, list[Process]]:
    options = SimpleNamespace(loadscopereorder=False)
    config: Any = SimpleNamespace(option=options, getvalue=lambda _: ["popen"] * count)
    schedule, processes = Beside(config), [Process() for _ in range(count)]
    for process in processes:
        join(schedule, process, tests)
    schedule.schedule()
    return schedule, processes


def join(schedule: Beside, process: Any, tests: list[str]) -> None:
    schedule.add_node(process)
    schedule.add_node_collection(process, tests)


def carry_out(schedule: Beside, tests: list[str], processes: list[Process]) -> dict[Process, list[str]]:
    """Every process does one test after the other, in turn, until none has any."""
    done: dict[Process, list[str]] = {process: [] for process in processes}
    while any(len(done[process]) < len(process.sent) for process in processes):
        for process in processes:
            if len(done[process]) < len(process.sent):
                index = process.sent[len(done[process])]
                done[process].append(tests[index])
                schedule.mark_test_complete(process, index)
    return done


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("tests", [SHOWN + PLAIN, SHOWN, PLAIN, PLAIN[:1]], ids=["both", "shown", "plain", "one"])
def test_every_test_runs_once_and_browsers_in_two_processes(tests: list[str], count: int) -> None:
    schedule, processes = started(tests, count)
    done = carry_out(schedule, tests, processes)
    assert sorted(test for each in done.values() for test in each) == sorted(tests)
    browsing = [each for each in done.values() if set(each) & set(SHOWN)]
    assert len(browsing) == min(BROWSERS, count, 5 if set(tests) & set(SHOWN) else 0)
    assert schedule.tests_finished and all(process.shutting_down for process in processes)
    for file in {test.partition("::")[0] for test in tests}:  # whole files
        assert sum(any(test.startswith(file) for test in each) for each in done.values()) == 1


def test_what_a_dead_process_had_is_done_by_others() -> None:
    tests = SHOWN + PLAIN
    schedule, processes = started(tests, 3)
    died, *others = processes
    crashed = schedule.remove_node(died)
    assert crashed == SHOWN[0]
    successor = Process()
    join(schedule, successor, tests)
    schedule.schedule()
    done = carry_out(schedule, tests, [*others, successor])
    assert {test for each in done.values() for test in each} == set(tests)
    assert schedule.tests_finished
