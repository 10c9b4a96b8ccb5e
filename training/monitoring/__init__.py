"""What a run tells of itself as it goes: rows, means, signs of trouble, a bar."""
