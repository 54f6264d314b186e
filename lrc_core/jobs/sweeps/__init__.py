"""Sweeps: methods x rates x seeds x models as a graph of runs, sent to an engine all at once. No torch."""
