"""The course's own small models: how they are made, and their weights."""
