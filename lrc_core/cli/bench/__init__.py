"""The commands of `lrc bench` that have words of their own."""
