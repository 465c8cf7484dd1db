"""Language models behind one interface, toy models with known answers, and the randomness that algorithms draw."""
