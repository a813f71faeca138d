"""The environment of a running stage: its job, the device, seeds, noise and the other ranks."""
