"""Images: where they come from, the Parquet shards they are kept in, and how they are read."""
