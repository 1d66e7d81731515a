"""Source of the compiled kernels. Modules here import numba, and are imported only to compile what is not on disk.

A kernel factory takes the constants it is compiled for (a dtype, the sizes of a tile) and returns a function
``kernel(args, task, slot)``: ``args`` points to the 64-bit integers that the launcher packed (addresses, sizes,
strides), ``task`` is the piece of the work to do, ``slot`` the thread's own share of scratch memory. What a kernel
computes for a task must not depend on the slot: that makes results bit-identical for any number of threads.
"""
