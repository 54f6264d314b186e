"""Texts: reading the files that users have, dealing documents into parts, and cutting token windows out of them."""
