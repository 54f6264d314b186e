"""Reading records: JSON within limits, and frozen dataclasses read from it by their annotations. No torch.

Every record that this program reads back (status, spec, plan, card, result, votes, answers, ...) comes through here, so
that whatever is wrong with a file is one kind of error that names the file and the field::

    @dataclass(frozen=True)
    class Vote:
        at: Moment
        answers: tuple[str, ...]

    vote = typed(Vote, load_record(path), str(path))
"""

from lrc_core.records.limits import Count, Label, Moment, Name, OneOf, Place, Positive, Range, Share, TextLimit, Written
from lrc_core.records.parse import AGAIN, MAX_BYTES, MAX_DEPTH, load_record, parse
from lrc_core.records.typed import typed
