"""The emulated CuPy is what it says: strict, watchful, and able to run kernels whose threads wait for one another.

Run with `PYTHONPATH=tests/emulated`; elsewhere these are reported as skipped.
"""

from __future__ import annotations

import shutil

import numpy as np
import pytest

cupy = pytest.importorskip("cupy")
if not cupy.__version__.endswith("emulated"):
    pytest.skip("not emulated here: PYTHONPATH=tests/emulated python -m pytest ...", allow_module_level=True)

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here to compile kernels with")

HALVES = """
#include <cuda_fp16.h>
#include <cuda_bf16.h>
extern "C" __global__ void to_float16(const float* x, __half* y, float* back, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) { y[i] = __float2half(x[i]); back[i] = __half2float(y[i]); }
}
extern "C" __global__ void to_bfloat16(const float* x, __nv_bfloat16* y, float* back, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) { y[i] = __float2bfloat16(x[i]); back[i] = __bfloat162float(y[i]); }
}
"""

ROW_SUMS = """
struct Shape { int rows, columns; };
extern "C" __global__ void row_sums(const float* x, float* y, const Shape shape) {
  __shared__ float parts[32];
  float sum = 0;
  for (int i = threadIdx.x; i < shape.columns; i += blockDim.x) sum += x[blockIdx.x * shape.columns + i];
  for (int mask = 16; mask; mask /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, mask);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x) return;
  for (int i = 1; i < (int)blockDim.x / 32; i++) sum += parts[i];
  y[blockIdx.x] = sum;
}
extern "C" __global__ void past_the_end(float* y, int n) { y[n + threadIdx.x] = 1; }
extern "C" __global__ void in_vain(float* y) { if (threadIdx.x < 40) __syncthreads(); else __syncwarp(); __syncwarp(); }
"""


def test_mixing_with_numpy_and_silent_copies_to_the_host_raise():
    x = cupy.ones((2, 3), dtype=cupy.float32)
    for mixed in (lambda: x + np.ones((2, 3)), lambda: np.ones((2, 3)) * x, lambda: np.asarray(x), lambda: np.sum([x])):
        with pytest.raises(TypeError):
            mixed()


def test_waiting_for_the_device_is_counted():
    x = cupy.arange(3)
    waits = (x.get, lambda: float(x[0]), lambda: bool(x[1]), x.tolist, lambda: cupy.asnumpy(x), lambda: x[2].item())
    for wait in waits:
        before = cupy.emulation.counts["synchronisations"]
        wait()
        assert cupy.emulation.counts["synchronisations"] == before + 1


def test_scalars_are_arrays_without_axes_and_fresh_memory_is_nan():
    total = cupy.ones(3).sum()
    assert type(total) is cupy.ndarray
    assert total.shape == ()
    assert np.isnan(cupy.empty((2, 2), dtype=cupy.float16).get()).all()


def test_python_numbers_promote_as_numpys_do():
    mask, image = cupy.zeros(2, dtype=bool), cupy.zeros(2, dtype=cupy.uint8)
    assert [(mask * 0.5).dtype, (image / 255.0).dtype, cupy.multiply(0.5, image).dtype] == [np.float64] * 3
    assert [(mask + 1).dtype, (image + 1).dtype] == [np.int64, np.uint8]
    assert (cupy.zeros(2, dtype=cupy.float16) * 0.5).dtype == np.float16


def test_what_cupy_refuses_of_what_numpy_takes_raises():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    number, row = cupy.asarray(3), cupy.zeros(3)
    for refused, error in (
        (lambda: range(5)[number], TypeError),  # it has no __index__
        (lambda: number.sum(axis=0), np.exceptions.AxisError),
        (lambda: cupy.max(number, axis=-1), np.exceptions.AxisError),
        (lambda: cupy.argmax(number, 0), np.exceptions.AxisError),
        (lambda: cupy.repeat(number, 2, axis=0), np.exceptions.AxisError),
        (lambda: cupy.argsort(row.astype(ml_dtypes.bfloat16)), NotImplementedError),
        (lambda: row.__setitem__(..., [1, 2, 3]), ValueError),
        (lambda: row.fill([1.0]), ValueError),
        (lambda: row.get(out=np.zeros(3, dtype="float32")), TypeError),
        (lambda: row.get(out=np.zeros(4)), ValueError),
    ):
        with pytest.raises(error):
            refused()
    assert cupy.zeros((2, 2), dtype=ml_dtypes.bfloat16).var().dtype == np.float64


def test_current_streams_are_of_a_device_and_devices_have_no_hash():
    with cupy.cuda.Stream() as stream:
        assert cupy.cuda.get_current_stream() is stream
        with cupy.cuda.Device(1):
            assert cupy.cuda.get_current_stream() is cupy.cuda.Stream.null
            with pytest.raises(RuntimeError, match="does not match"):
                stream.use()
    with pytest.raises(TypeError, match="unhashable"):
        hash(cupy.cuda.Device(0))
    with pytest.warns(DeprecationWarning, match="from_external"):
        cupy.cuda.ExternalStream(1)


def test_arrays_know_their_device():
    with cupy.cuda.Device(1):
        x = cupy.ones(3)
        assert float(x.sum()) == 3
    assert x.device == cupy.cuda.Device(1)
    with pytest.raises(ValueError, match="Array device must be same"):
        x + 1


def test_half_precision_products():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = cupy.full((1, 2**12), 0.5, dtype=cupy.float16)
    assert float((x @ cupy.ones((2**12, 1), dtype=cupy.float16))[0, 0]) == 2**11
    with pytest.raises(TypeError, match="bfloat16"):
        cupy.ones((2, 2, 2), dtype=ml_dtypes.bfloat16) @ cupy.ones((2, 2, 2), dtype=ml_dtypes.bfloat16)


def test_a_captured_stream_records_and_its_graph_runs():
    x, stream = cupy.ones(3), cupy.cuda.Stream()
    with stream:
        stream.begin_capture()
        y = x * 2
        x += 1
        graph = stream.end_capture()
        assert x.tolist() == [1, 1, 1], "a capture runs nothing"
        graph.launch()
        graph.launch()
    assert (x.tolist(), y.tolist()) == ([3, 3, 3], [4, 4, 4])
    with pytest.raises(RuntimeError, match="default stream"):
        cupy.cuda.get_current_stream().begin_capture()


def test_what_a_capture_does_not_permit_spoils_it():
    """Whoever catches the error."""
    with cupy.cuda.Stream() as stream:
        stream.begin_capture()
        with pytest.raises(RuntimeError, match="StreamCaptureUnsupported"):
            cupy.ones(3).get()
        with pytest.raises(RuntimeError, match="invalidated"):
            stream.is_capturing()
        with pytest.raises(RuntimeError, match="StreamCaptureInvalidated"):
            stream.end_capture()
        assert not stream.is_capturing()


def test_a_captured_stream_takes_no_call_of_cublas():
    with cupy.cuda.Stream() as stream:
        stream.begin_capture()
        with pytest.raises(NotImplementedError, match="during stream capture"):
            cupy.cuda.cublas.gemmStridedBatchedEx(*range(23))
        stream.end_capture()


@needs_compiler
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_kernels_round_to_half_precision_as_numpy_does(name):
    dtype = np.dtype(getattr(pytest.importorskip("ml_dtypes"), name, np.float16))
    rng = np.random.default_rng(0)
    every = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    with np.errstate(all="ignore"):
        ties = (every[1:] + every[:-1]) / 2
        scaled = rng.standard_normal(10**5) * 10.0 ** rng.integers(-12, 8, 10**5)
        values = np.concatenate([every, ties, scaled.astype(np.float32), np.float32([np.inf, -np.inf, np.nan])])
        expected = values.astype(dtype)
    x = cupy.asarray(values)
    y, back = cupy.empty(values.shape, dtype), cupy.empty(values.shape, np.float32)
    kernel = cupy.RawModule(code=HALVES).get_function(f"to_{name}")
    kernel((-(-values.size // 256),), (256,), (x, y, back, np.int32(values.size)))
    wide = expected.astype(np.float32)
    np.testing.assert_array_equal(y.get().astype(np.float32), wide)
    np.testing.assert_array_equal(back.get(), wide)


@needs_compiler
def test_threads_wait_for_one_another():
    x = cupy.asarray(np.arange(3 * 200, dtype=np.float32).reshape(3, 200))
    y, shape = cupy.empty(3, np.float32), np.array((3, 200), dtype=[("rows", "i4"), ("columns", "i4")])
    cupy.RawModule(code=ROW_SUMS).get_function("row_sums")((3,), (96,), (x, y, shape))
    np.testing.assert_array_equal(y.get(), x.get().sum(axis=1))


FAULTS = """
extern "C" __global__ void no_barrier_before_reading(float* y, int back) {
  __shared__ float parts[64];
  __syncthreads();
  parts[threadIdx.x] = 1;
  y[threadIdx.x] = parts[back ? threadIdx.x - threadIdx.x % 32 : 63 - threadIdx.x];
}
extern "C" __global__ void no_barrier_before_writing_again(float* y) {
  __shared__ float parts[2];
  float sum = 0;
  for (int round = 0; round < 2; round++) {
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = round;
    __syncthreads();
    sum += parts[0] + parts[1];
  }
  y[threadIdx.x] = sum;
}
extern "C" __global__ void never_written(float* y) {
  __shared__ float parts[2];
  if (blockIdx.x == 0) parts[threadIdx.x % 2] = 1;
  __syncthreads();
  y[blockIdx.x * blockDim.x + threadIdx.x] = parts[0];
}
extern "C" __global__ void lane_left_out(float* y) {
  y[threadIdx.x] = __shfl_xor_sync(0x7fffffffu, 1.0f, 1);
}
extern "C" __global__ void lane_has_ended(float* y) {
  if (threadIdx.x % 32 == 5) return;
  y[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
}
extern "C" __global__ void branches_meet(float* y) {
  if (threadIdx.x < 32) { y[threadIdx.x] = 1;
    __syncthreads(); } else
    __syncthreads();
}
"""


@needs_compiler
@pytest.mark.parametrize("from_the_last", [False, True])
def test_a_missing_barrier_shows(from_the_last, monkeypatch):
    """Other threads' numbers are not there yet, or those of the round after are, in one order of threads or in both."""
    monkeypatch.setattr(cupy.emulation, "from_the_last", from_the_last)
    module = cupy.RawModule(code=FAULTS)

    def result(name, blocks, *args):
        y = cupy.empty(64 * blocks, np.float32)
        module.get_function(name)((blocks,), (64,), (y, *args))
        return y.get()

    assert np.isnan(result("no_barrier_before_reading", 1, np.int32(0))).any()
    assert np.isnan(result("no_barrier_before_reading", 1, np.int32(1))).any() == from_the_last
    assert (result("no_barrier_before_writing_again", 1) != 2).any()
    assert np.isnan(result("never_written", 2)[64:]).all(), "a block finds what the one before it has left"


@needs_compiler
@pytest.mark.parametrize("from_the_last", [False, True])
@pytest.mark.parametrize(
    ("name", "words"),
    [("lane_left_out", "leaves out a lane"), ("lane_has_ended", "has ended"), ("branches_meet", "different lines")],
)
def test_threads_that_do_not_meet_raise(name, words, from_the_last, monkeypatch):
    monkeypatch.setattr(cupy.emulation, "from_the_last", from_the_last)
    with pytest.raises(RuntimeError, match=words):
        cupy.RawModule(code=FAULTS).get_function(name)((1,), (64,), (cupy.empty(64, np.float32),))


@needs_compiler
def test_what_would_go_wrong_unseen_on_a_device_raises():
    module, y = cupy.RawModule(code=ROW_SUMS), cupy.empty(4, np.float32)
    with pytest.raises(RuntimeError, match="outside the memory"):
        module.get_function("past_the_end")((1,), (1,), (y, np.int32(4)))
    with pytest.raises(RuntimeError, match="in vain"):
        module.get_function("in_vain")((1,), (64,), (y,))
    for args in ((y, 4), (cupy.empty(4), np.int32(4)), (y,), (cupy.empty((4, 4), np.float32)[:, 0], np.int32(1))):
        with pytest.raises((TypeError, ValueError)):
            module.get_function("past_the_end")((1,), (1,), args)
    with pytest.raises(RuntimeError, match="INVALID_VALUE"):
        module.get_function("past_the_end")((1,), (2048,), (y, np.int32(0)))
