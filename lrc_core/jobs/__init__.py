"""Jobs: one detached worker process a run, and what starts, watches and stops them. No torch but in the worker."""
