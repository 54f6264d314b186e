"""The presenter: slides made from runs."""
