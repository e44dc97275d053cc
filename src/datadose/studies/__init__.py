"""The studies by subject: what is run, drawn, judged and written about it stands in one place."""
