"""Does the selection pay on a real language model?"""
