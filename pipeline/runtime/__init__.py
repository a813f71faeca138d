"""What a running stage sees: its job, the device, seeds, noise and the ranks beside it."""
