"""Where edges come from: polars plans, SQL text, or what a program declares."""
