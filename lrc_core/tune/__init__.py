"""What is done to a plan's factors after its ranks are chosen, and tuning them by gradient steps."""
