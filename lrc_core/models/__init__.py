"""Models: fetching, reading, and finding their linears by structure."""
