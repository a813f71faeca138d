"""What lies on disk and how it stays true: artifacts, image sets, coupling banks."""
