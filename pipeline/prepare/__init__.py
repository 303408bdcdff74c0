"""What only the first stage needs: data sets, their split and their shards."""
