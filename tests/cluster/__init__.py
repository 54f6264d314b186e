"""Jobs on Slurm and Ray: what a node does, and the real engines started on this machine."""
