"""Opens data sets, cleans their pictures and splits them; used by the stage `prepare`."""
