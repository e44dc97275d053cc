"""The studies by subject: what is run, drawn, judged and said about it stands in one place."""
