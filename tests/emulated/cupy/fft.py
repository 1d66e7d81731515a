"""Of CuPy's Fourier transforms nothing is emulated; array-api-compat imports the module."""
