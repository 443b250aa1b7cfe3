"""check_task.py: what a task is, before it is trained."""
