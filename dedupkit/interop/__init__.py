"""The function names and return shapes of other packages."""
