"""A server as users start it: a process of its own, on a port of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import psutil

from pages.ui.serve import free_port
from tests.factories.job_helpers import wait_for
from tests.tree import ROOT


class Served:
    """A running ``lrc app`` or, with ``LRC_READ_ONLY``, ``lrc demo``.

    Args:
        log: file that its output is appended to.
        environment: variables that it gets besides this process's.
    """

    def __init__(self, log: Path, environment: Mapping[str, str]) -> None:
        port = free_port(range(9400, 9900))
        self.url, self._log, self._from = f"http://127.0.0.1:{port}", log, log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pages.ui.serve", str(port)],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            wait_for(self._answers, f"the server: {self.log()[-500:]}", 120)
        except BaseException:
            self._process.kill()
            raise
        self.process = psutil.Process(self._process.pid)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=2):
                return True
        except OSError:
            assert self._process.poll() is None, self.log()
            return False

    def log(self) -> str:
        """What it has printed."""
        with self._log.open("rb") as file:
            file.seek(self._from)
            return file.read().decode("utf-8", "replace")

    def kill(self, number: signal.Signals = signal.SIGKILL) -> float:
        """Send a signal and wait until it has gone; killed after a minute. Returns how long that took, in seconds."""
        began = time.monotonic()
        self._process.send_signal(number)
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        return time.monotonic() - began
