"""Where outputs go; each sink stores outputs, window state and offsets in one atomic commit."""
