"""Parts of the page that allocates."""
