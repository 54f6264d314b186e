"""Plotly figures of spectra, ranks, measurements and training, for app and notebooks. No Streamlit, no torch."""
