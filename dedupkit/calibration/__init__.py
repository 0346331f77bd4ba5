"""How good a rule is on one's own data: recall on synthetic duplicates, judged precision, false pairs to expect."""
