"""The referee: which selector of training rows wins, where, and by how much, with the power to tell."""
