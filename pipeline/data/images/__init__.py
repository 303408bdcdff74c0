"""Reads images: shards, crops and training batches."""
