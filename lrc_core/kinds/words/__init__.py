"""How the kinds speak: flags both ways, lists of them, choices of methods, and titles."""
