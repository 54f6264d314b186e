"""The measures of a page, in points."""

PAGE = (595.28, 841.89)
SIDE, TOP, BOTTOM = 50.0, 52.0, 54.0
WIDTH = PAGE[0] - 2 * SIDE
"""Points between the margins of an A4 page."""
