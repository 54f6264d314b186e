"""What the stages of a job share through the model that it holds."""

from __future__ import annotations

from pathlib import Path

import torch

from lrc_core.pipeline.session import Session
from lrc_core.runs.spec import ModelRef
from lrc_core.types import ignore_progress, never_stop
from tests.factories.tiny_models import save_tiny


def test_answers_are_of_the_same_windows_in_the_same_batches_and_go_with_the_model(tmp_path: Path) -> None:
    session = Session(ModelRef(str(save_tiny(tmp_path))), ignore_progress, never_stop)
    windows = torch.arange(12).reshape(3, 4)
    answers = session.answers_to(windows, 2, 1)
    answers[0] = (torch.ones(1),)
    part = session.watched_by(ignore_progress, never_stop)
    assert part.answers_to(windows.clone(), 2, 1) is answers
    assert not part.answers_to(windows, 1, 1) and not part.answers_to(windows + 1, 2, 1)
    assert not session.answers_to(windows, 2, 1)  # only the newest are kept
    session.answers_to(windows, 2, 1)[0] = (torch.ones(1),)
    session.release()
    assert not session.answers_to(windows, 2, 1)
