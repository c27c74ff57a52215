"""Infrastructure shared by all processes: atomic files, locks, child processes, interrupts."""
