"""Measuring editors: examples, systems, metrics, and a report with pictures."""
