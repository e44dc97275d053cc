"""Figure 4: what training itself does, and the map of where its claims hold."""
