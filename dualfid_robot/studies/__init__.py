"""Studies: tasks × methods × gaps × budgets × seeds, one training run each, and the report on them."""
