"""The report: one model of content, drawn as an HTML file and as a PDF that cannot disagree. Light: no torch."""
