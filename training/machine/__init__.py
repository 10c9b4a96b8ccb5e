"""The machine of a run: devices, processes, memory, disk, signals."""
