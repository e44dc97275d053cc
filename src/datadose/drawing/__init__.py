"""Style and curves that more than one subject draws; nothing here computes an error or trains a model."""
