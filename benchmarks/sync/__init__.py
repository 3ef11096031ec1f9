"""Copies and comparisons of `tidemill sync` against rclone and s5cmd on one S3 server."""
