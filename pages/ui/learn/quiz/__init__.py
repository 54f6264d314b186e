"""The quiz of the lesson: its questions, and the figures that some of them read."""
