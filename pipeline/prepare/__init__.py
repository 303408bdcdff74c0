"""Stage `prepare`: opens and splits data sets, and makes pictures upright, opaque and 8-bit."""
