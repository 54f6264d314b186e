"""Run folders: what was asked, how it goes, what came out. Typed, versioned, atomic; no torch."""

from lrc_core.front import callable_package

callable_package(__name__)
