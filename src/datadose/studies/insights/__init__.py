"""Insights 1 to 4, section 7 and finding 3 of the paper, one module each."""
