// The functions of cuBLAS's C interface that are called by name. Python computes: it sets `emulated_cublas`.
typedef int (*Product)(void *, int, int, int, int, int, const void *, const void *, int, int, long long, const void *,
                       int, int, long long, const void *, void *, int, int, long long, int, int, int);
typedef int (*Setting)(void *, void *, unsigned long);

extern "C" {
Product emulated_cublas_product;
Setting emulated_cublas_stream, emulated_cublas_workspace;

int cublasSetStream_v2(void *handle, void *stream) { return emulated_cublas_stream(handle, stream, 0); }
int cublasSetWorkspace_v2(void *handle, void *at, unsigned long size) {
  return emulated_cublas_workspace(handle, at, size);
}
int cublasGemmStridedBatchedEx(void *handle, int transa, int transb, int m, int n, int k, const void *alpha,
                               const void *A, int Atype, int lda, long long strideA, const void *B, int Btype, int ldb,
                               long long strideB, const void *beta, void *C, int Ctype, int ldc, long long strideC,
                               int batch, int compute, int algo) {
  return emulated_cublas_product(handle, transa, transb, m, n, k, alpha, A, Atype, lda, strideA, B, Btype, ldb, strideB,
                                 beta, C, Ctype, ldc, strideC, batch, compute, algo);
}
}
