"""What is done for start-up time and memory: lazy names, the allocator, compiled code kept on disk, the workers."""
