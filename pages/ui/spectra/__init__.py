"""Parts of the page of spectra."""
