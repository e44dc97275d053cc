"""Training time, penalty and weights, and stages one after the other: what the exact theory says."""
