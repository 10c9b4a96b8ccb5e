"""What a run computes on: devices, processes, memory, disk, signals."""
