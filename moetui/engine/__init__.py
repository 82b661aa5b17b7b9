"""Everything with torch."""
