"""What each stage leaves on disk, and the one place that reads it back."""
