"""The data sets, their split and their shards; only the first stage uses this."""
