"""The `threads` executor, and how a run of ours is driven."""
