"""The composition root: adapters are made here, and handed over by name. Begin at `gateway.py`."""
