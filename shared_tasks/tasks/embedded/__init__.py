"""The embedded sets: seeded generators of problems, questions and prompts, with their right answers."""
