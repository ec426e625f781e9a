"""Table care: compaction, expiry of snapshots, orphan files, old metadata."""
