"""Figures drawn from saved tables only; nothing here computes an error or trains a model."""
