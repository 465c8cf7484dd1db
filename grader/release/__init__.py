"""The student archive of an assignment: what is in it, and the files that only it has."""
