"""A run's own things: its session, record, log, display and recipes."""
