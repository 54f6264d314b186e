"""Parts of the view of a bench."""
