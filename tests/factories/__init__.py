"""Runs, tables, models and methods made for tests."""
