"""Pictures, captions and shards that others made."""
