"""The quality annotator: what it learns from, its linear head, scoring (paper section 3.2)."""
