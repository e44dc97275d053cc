"""The numbers of the theory, measured by drawing prompts."""
