"""Number formats of stored matrices: their grids, their bytes, and rounding to them."""
