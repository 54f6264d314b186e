"""Who runs which file of tests: browsers in two processes at most, beside tests that need none."""

from __future__ import annotations

from typing import Any

from xdist.scheduler import LoadFileScheduling

BROWSERS = 2
"""Processes that run browser tests, of however many: each keeps a server and a Chromium, a load of its own."""
_THEIRS = "tests/browser/"


class Beside(LoadFileScheduling):
    """Whole files to each process as with ``--dist loadfile``; those that need a browser first, to two of them.

    A browser test waits for most of its time, so that other tests find time beside it; many browsers at once would
    wait for each other.
    """

    def _browses(self, node: Any) -> bool:
        """Whether a browser test may go to this process."""
        busy = [
            each
            for each, work in self.assigned_work.items()
            if not each.shutting_down and any(scope.startswith(_THEIRS) for scope in work)
        ]
        return node in busy or len(busy) < BROWSERS

    def _next_for(self, node: Any) -> str | None:
        """The file that this process takes next; None when what is left is not for it."""
        theirs = [scope for scope in self.workqueue if scope.startswith(_THEIRS)]
        if theirs and self._browses(node):
            return theirs[0]
        return next((scope for scope in self.workqueue if not scope.startswith(_THEIRS)), None)

    def _reschedule(self, node: Any) -> None:
        if self.workqueue and not node.shutting_down and self._next_for(node) is None:
            node.shutdown()
        else:
            super()._reschedule(node)

    def _assign_work_unit(self, node: Any) -> None:
        if scope := self._next_for(node):
            self.workqueue.move_to_end(scope, last=False)
            super()._assign_work_unit(node)
