"""The leaderboard: a queue of entries, evaluated by the judge alone, and the boards made of what it measured."""
