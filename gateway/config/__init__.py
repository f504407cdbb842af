"""Settings: a file and the environment, all mistakes told at once. Begin at `settings.py`."""
