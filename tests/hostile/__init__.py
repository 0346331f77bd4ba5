"""Hostile inputs of every kind, each held against an oracle; ``python -m hostile --help`` says how to run them."""
