"""How good a rule is on one's own data: recall on planted copies, judged precision, false pairs to expect."""
