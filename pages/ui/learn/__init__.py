"""What the Learn page shares: its eight steps, one a file, their words, and what is remembered of them."""
