"""ARS, adaptive rank selection by a hypernetwork (NAACL 2024)."""
