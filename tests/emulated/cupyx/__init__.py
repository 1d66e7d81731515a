"""What comes beside CuPy, as far as it is asked for."""
