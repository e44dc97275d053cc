"""Figure 3: the nonlinear transformer, and which data it learns from."""
