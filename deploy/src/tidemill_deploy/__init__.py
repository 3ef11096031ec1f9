"""The one code location: every package at work on the New York flights of 2013."""
