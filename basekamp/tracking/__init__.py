"""Results at the trackers that a team has: written to a spool beside the training, sent by other processes."""
