"""Parts of the page for plans made by hand."""
