"""Reads images from shards, crops them, and prepares training batches."""
