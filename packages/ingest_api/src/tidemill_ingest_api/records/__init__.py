"""From an upstream record to a row: field kinds, flattening, and the same rows as Arrow."""
