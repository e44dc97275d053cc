"""The same questions on a small language model of our own, trained on families of string tasks."""
