"""Run folders: what was asked, how it goes, what came out. Typed, versioned, atomic; no torch."""
