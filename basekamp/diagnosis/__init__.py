"""Why performance is low: facts of data and networks, and the rules that name a condition by its evidence."""
