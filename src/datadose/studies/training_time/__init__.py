"""Training time, penalty and weights, and stages one after the other: the exact theory."""
