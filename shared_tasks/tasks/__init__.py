"""Mathematical reasoning, multiple choice, open-ended generation: data sets, prompts, and how outputs are scored."""
