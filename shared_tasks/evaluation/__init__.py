"""Running tasks on engines: methods, stored answers, scores, comparisons, and a page to look at them."""
