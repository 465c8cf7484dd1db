"""A sample cohort: what students hand in, good and bad."""
