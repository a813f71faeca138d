"""What a stage will take, before it runs: memory, disk and time; and whether it fits its images.

`estimate` gives memory and disk, `forecast` the time: the sum of a stage's `parts`, each by a measured rate or by its
counted work and the speed of the device.
"""
