"""Campaigns: real workers killed, files damaged, readers fed with what is malformed; counted, and all from a seed.

``python -m tests.campaign`` runs them at length; ``test_slices`` runs a little of each with the other tests.
"""
