"""Opens and splits data sets, and cleans their pictures; used by the stage `prepare`."""
