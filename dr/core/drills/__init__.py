"""Drills: recovery tried beforehand. Here: dry runs, on paper. Not here: the shape of reports (`dr.model.drills`)."""
