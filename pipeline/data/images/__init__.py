"""Reading images: their shards, crops and training batches."""
