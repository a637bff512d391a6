"""The controller's own work: schedules and tasks."""
