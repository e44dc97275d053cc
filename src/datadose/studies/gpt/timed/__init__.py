"""Figure 3 with the paper's model within a wall-clock budget, on one GPU."""
