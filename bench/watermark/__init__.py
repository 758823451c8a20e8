"""How well marks survive, how little they are seen, and what they cost."""
