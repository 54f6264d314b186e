"""Commands that are about clusters: ``lrc sweep``, and what an engine costs."""
