"""What ops and engines must agree on about activations."""

# Those whose derivative follows from their output: in every engine their residuals are the output itself.
# CUDA's kernels number activations in this order (`engines/cupy/kernels/activation.cuh`).
FROM_OUTPUT = ("relu", "relu6", "sigmoid", "tanh", "softplus")
