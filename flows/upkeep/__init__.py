"""Keeping the store in order: garbage collection, verification, repair and status."""
