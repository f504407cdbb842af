"""What governance costs: ratios of one run, on one machine (DESIGN §8). Run `python -m bench`."""
