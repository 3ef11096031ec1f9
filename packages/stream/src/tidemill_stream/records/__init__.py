"""Records: schemas, fields, conditions, columns and times."""
