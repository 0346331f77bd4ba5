"""The one description of a run folder: its paths, its configuration, its lock."""
