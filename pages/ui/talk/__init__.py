"""Parts of the page of answers side by side."""
