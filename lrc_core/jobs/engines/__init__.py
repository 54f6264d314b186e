"""Engines that run workers: this machine, Slurm, Ray. Run folders stay the truth; engines say what folders cannot."""
