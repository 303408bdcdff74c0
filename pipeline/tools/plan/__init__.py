"""The cost of a run with given params, computed without training anything."""
