"""Code generated from the contracts in `proto/`; never edited by hand."""
