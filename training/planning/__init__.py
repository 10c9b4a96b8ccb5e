"""Everything that is determined before a run starts: preset, memory, threads, time and cost."""
