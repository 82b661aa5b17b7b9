"""The content of the four tabs."""
