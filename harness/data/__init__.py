"""What a user brings to learn from: samples in three splits, wherever they come from."""
