"""Functions that clouds call with bucket notifications; the sync is what ``TIDEMILL_SYNC_CONFIG`` names."""
