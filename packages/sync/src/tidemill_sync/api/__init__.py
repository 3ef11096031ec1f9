"""The sync service over HTTP."""
