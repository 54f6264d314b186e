"""What methods share that learn: the training driver, the teacher, Gumbel noise."""
