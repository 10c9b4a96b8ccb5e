"""What is settled before a run begins: preset, memory, threads, time and cost."""
