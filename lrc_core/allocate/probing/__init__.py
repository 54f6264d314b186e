"""What methods share that probe the model, one layer at a time."""
