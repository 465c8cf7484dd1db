"""What students import: models, tasks, metrics, evaluation."""
