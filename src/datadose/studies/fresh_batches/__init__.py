"""Repetition: many epochs on few rows against one pass over fresh ones."""
