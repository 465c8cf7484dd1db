"""The gradebook of a term: what students earned, from roster, graded homeworks and points given by hand."""
