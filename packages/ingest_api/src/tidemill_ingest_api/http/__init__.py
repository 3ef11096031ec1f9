"""What goes over the wire: requests, answers, headers, URLs."""
