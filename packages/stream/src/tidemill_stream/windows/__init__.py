"""Windows over event time, and what they compute."""
