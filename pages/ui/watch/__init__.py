"""Parts of the page that shows a training run."""
