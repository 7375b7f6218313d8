"""Sweeps: many trials around one idea, in rounds; what came of each is a name in the store."""
