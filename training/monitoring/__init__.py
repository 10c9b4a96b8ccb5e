"""Monitoring of a run: history, means, alarms, console output."""
