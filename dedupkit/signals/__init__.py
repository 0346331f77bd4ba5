"""What a rule can name: hashes, embedders, verification; how each is stored, joined and scored."""
