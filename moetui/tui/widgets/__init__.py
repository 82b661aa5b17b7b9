"""The widgets that draw routing."""
