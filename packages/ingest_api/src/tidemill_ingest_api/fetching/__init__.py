"""Read an API: ask its pages politely, follow its paging, and commit what came with the state that says so."""
