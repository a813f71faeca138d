"""The files that each stage writes, and the one place that reads them back."""
