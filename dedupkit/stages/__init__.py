"""The blocks of every workflow: scan, embed, match, verify, decide."""
