"""The successive Lagrangian, this project's own method."""
