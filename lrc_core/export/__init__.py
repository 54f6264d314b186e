"""What leaves the program: files for people and programs that do not have it. Light: no torch, no model library."""
