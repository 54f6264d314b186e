"""Measuring this program's own speed, as ratios within one run. ``lrc bench NAME``."""
