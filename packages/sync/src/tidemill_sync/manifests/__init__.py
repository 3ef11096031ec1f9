"""Where the notes of a sync are kept, by URL scheme; `open_manifest` finds the place."""
