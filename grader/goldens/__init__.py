"""What references gave, kept: which code they depend on, the store, recordings of models, and preparing all of it."""
