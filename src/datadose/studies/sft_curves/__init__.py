"""Figures 1, 2 and 5: the error after SFT, simulated and predicted."""
