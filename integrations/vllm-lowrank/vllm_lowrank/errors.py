"""What this package refuses."""

from __future__ import annotations

REMEDY = "`transformers serve FOLDER --trust-remote-code` runs it."


class RefusedFolderError(ValueError):
    """A folder, or a way to run it, that vLLM cannot be given; the message names the thing and the remedy."""

    def __init__(self, message: str, remedy: str = REMEDY) -> None:
        super().__init__(f"{message} {remedy}")
