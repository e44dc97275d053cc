"""The same question at four levels of model: how much data, for how long, in what mixture."""
