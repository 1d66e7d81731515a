// CUDA C++ for g++: a launch runs its blocks one after the other, and the threads of a block as fibers.
//
// The first thread of a block tells whether the kernel waits for other threads: if it ends without waiting, the rest
// run as plain calls. Else one warp after the other runs as far as it can: its threads in turn to where they wait, on from
// there when all of the warp wait for a shuffle or have ended, and so on up to a barrier of the block. So between two
// barriers a warp is all done before the next has begun. Launches may be told to go through warps and threads from the
// last to the first: what a thread needs of another without a barrier between is missing in one order or the other.
//
// Errors: threads that wait for one another in vain, or that meet at different lines; a shuffle whose mask leaves out a
// lane that takes part, or that reads from a lane which has ended or is not in the mask. Shared memory is full of NaN when
// a block begins. Fibers are made once and used again for the next block; they switch by jumps, which unlike swapcontext
// make no system calls.
#pragma once
#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <ucontext.h>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static __attribute__((section("emulated_shared")))
#define __constant__ static
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define EMULATED_CUPY 1

struct uint3 { unsigned x, y, z; };
typedef uint3 dim3;
static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;

namespace emulated {

enum Wait { RUNS, WAITS_FOR_WARP, WAITS_FOR_BLOCK, ENDED };
struct Fiber { jmp_buf here; ucontext_t first; uint3 thread; Wait wait; int line; bool made; };

const int MOST = 1024;
const size_t STACK = 128 * 1024;
static Fiber fibers[MOST];
static char *stacks;
static jmp_buf scheduler;
static int running = -1;  // the fiber that runs; -1: a plain call
static void (*body)(void **);
static void **arguments;
static const char *error;
static unsigned long long slots[MOST];
static bool backwards;  // from the last thread to the first

static inline unsigned linear(const uint3 &t) { return t.x + blockDim.x * (t.y + blockDim.y * t.z); }

static void leave(int me) {
  if (!_setjmp(fibers[me].here)) _longjmp(scheduler, 1);
}

static void entry() {
  for (int me = running;; leave(me)) {
    body(arguments);
    fibers[me].wait = ENDED;
  }
}

static void wait(Wait for_what, int line) {
  if (running < 0) {
    error = "a thread waits for others where the first thread of its block did not";
    return;
  }
  int me = running;
  fibers[me].wait = for_what;
  fibers[me].line = line;
  leave(me);
}

static void resume(int i) {
  running = i;
  threadIdx = fibers[i].thread;
  if (!_setjmp(scheduler)) {
    if (fibers[i].made) _longjmp(fibers[i].here, 1);
    fibers[i].made = true;
    setcontext(&fibers[i].first);
  }
  running = -1;
}

static void start(int i, uint3 thread) {
  Fiber &f = fibers[i];
  f.thread = thread;
  f.wait = RUNS;
  if (!f.made) {
    getcontext(&f.first);
    f.first.uc_stack.ss_sp = stacks + i * STACK;
    f.first.uc_stack.ss_size = STACK;
    f.first.uc_link = 0;
    makecontext(&f.first, entry, 0);
  }
  resume(i);
}

// Threads first..last-1 go on if all of them wait for one another or have ended.
static bool release(int first, int last, Wait which) {
  int line = 0;
  for (int i = first; i < last; i++) {
    if (fibers[i].wait == ENDED) continue;
    if (fibers[i].wait != which) return false;
    if (line && fibers[i].line != line) error = "threads that wait for one another wait at different lines";
    line = fibers[i].line;
  }
  for (int i = first; i < last; i++)
    if (fibers[i].wait == which) fibers[i].wait = RUNS;
  return line != 0;
}

static uint3 place(unsigned i) { return {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y}; }

static int in_order(int i, int n) { return backwards ? n - 1 - i : i; }

// All threads of a warp as far as they can go without the others of the block.
static void run_warp(int first, int last, bool begins) {
  do
    for (int i = 0, n = last - first; i < n && !error; i++) {
      int me = first + in_order(i, n);
      if (begins && me != in_order(0, blockDim.x * blockDim.y * blockDim.z)) start(me, place(me));
      else if (fibers[me].wait == RUNS) resume(me);
    }
  while (begins = false, release(first, last, WAITS_FOR_WARP));
}

extern "C" char __start_emulated_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_emulated_shared[] __attribute__((weak, visibility("hidden")));

static void run_block() {
  int n = blockDim.x * blockDim.y * blockDim.z, warps = (n + 31) / 32, probe = in_order(0, n);
  if (__start_emulated_shared) memset(__start_emulated_shared, 0xff, __stop_emulated_shared - __start_emulated_shared);
  start(probe, place(probe));
  if (fibers[probe].wait == ENDED) {
    for (int i = 1; i < n; i++) { threadIdx = place(in_order(i, n)); body(arguments); }
    return;
  }
  for (bool begins = true;; begins = false) {
    for (int w = 0; w < warps; w++) {
      int first = in_order(w, warps) * 32;
      run_warp(first, first + 32 < n ? first + 32 : n, begins);
    }
    if (!error && release(0, n, WAITS_FOR_BLOCK)) continue;
    for (int i = 0; i < n; i++) {
      if (fibers[i].wait != ENDED && !error) error = "threads wait for one another in vain";
      fibers[i].made = fibers[i].made && fibers[i].wait == ENDED;
    }
    return;
  }
}

static const char *launch(void (*kernel)(void **), void **args, const unsigned *dims, bool from_the_last) {
  if (!stacks) stacks = (char *)malloc(MOST * STACK);
  body = kernel; arguments = args; error = 0; backwards = from_the_last;
  gridDim = {dims[0], dims[1], dims[2]};
  blockDim = {dims[3], dims[4], dims[5]};
  for (unsigned z = 0; z < gridDim.z; z++)
    for (unsigned y = 0; y < gridDim.y; y++)
      for (unsigned x = 0; x < gridDim.x && !error; x++) { blockIdx = {x, y, z}; run_block(); }
  return error;
}

// A kernel's signature as text, one word for each parameter: P and the pointer's element, or the scalar itself.
template <class T> struct Kind { static void tell(char *out) { sprintf(out, "V%zu", sizeof(T)); } };
template <class T> struct Kind<const T> : Kind<T> {};
template <class T> struct Kind<T *> { static void tell(char *out) { *out = 'P'; Kind<T>::tell(out + 1); } };
#define EMULATED_KIND(T, word) template <> struct Kind<T> { static void tell(char *out) { strcpy(out, word); } };
EMULATED_KIND(float, "f4") EMULATED_KIND(double, "f8") EMULATED_KIND(bool, "b1")
EMULATED_KIND(int, "i4") EMULATED_KIND(unsigned, "u4") EMULATED_KIND(long, "i8") EMULATED_KIND(unsigned long, "u8")
EMULATED_KIND(long long, "i8") EMULATED_KIND(unsigned long long, "u8") EMULATED_KIND(unsigned char, "u1")
EMULATED_KIND(signed char, "i1") EMULATED_KIND(char, "i1") EMULATED_KIND(short, "i2") EMULATED_KIND(unsigned short, "u2")

template <class... A> struct Kinds;
template <> struct Kinds<> { static void tell(char *) {} };
template <class A, class... B> struct Kinds<A, B...> {
  static void tell(char *out) { Kind<A>::tell(out); strcat(out, " "); Kinds<B...>::tell(out + strlen(out)); }
};
template <class... A> void tell(void (*)(A...), char *out) { *out = 0; Kinds<A...>::tell(out); }

template <int... I> struct Indices {};
template <int N, int... I> struct Upto : Upto<N - 1, N - 1, I...> {};
template <int... I> struct Upto<0, I...> { typedef Indices<I...> type; };
template <class... A, int... I> void call(void (*f)(A...), void **args, Indices<I...>) { f(*(A *)args[I]...); }
template <class... A> void call(void (*f)(A...), void **args) { call(f, args, typename Upto<sizeof...(A)>::type()); }

// What lane `from` of the warp has for the others, where the caller has `value` for them.
template <class T> T exchange(unsigned mask, T value, unsigned from, int line) {
  unsigned me = linear(threadIdx), first = me & ~31u, n = blockDim.x * blockDim.y * blockDim.z;
  if (!(mask >> (me & 31) & 1)) error = "the mask of a shuffle leaves out a lane that takes part in it";
  memcpy(&slots[me], &value, sizeof(T));
  wait(WAITS_FOR_WARP, line);
  unsigned at = first + from;
  if (at >= n || !(mask >> from & 1) || fibers[at].wait == ENDED)
    error = "a shuffle reads from a lane that has ended or is not in its mask";
  T got;
  memcpy(&got, &slots[at < n ? at : me], sizeof(T));
  wait(WAITS_FOR_WARP, line);
  return got;
}

}  // namespace emulated

static inline void __syncthreads(int line = __builtin_LINE()) { emulated::wait(emulated::WAITS_FOR_BLOCK, line); }
static inline void __syncwarp(unsigned = ~0u, int line = __builtin_LINE()) {
  emulated::wait(emulated::WAITS_FOR_WARP, line);
}
static inline unsigned emulated_lane() { return emulated::linear(threadIdx) & 31; }
template <class T> T __shfl_xor_sync(unsigned mask, T value, int lane, int line = __builtin_LINE()) {
  return emulated::exchange(mask, value, emulated_lane() ^ lane, line);
}
template <class T> T __shfl_sync(unsigned mask, T value, int lane, int line = __builtin_LINE()) {
  return emulated::exchange(mask, value, lane & 31, line);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned by, int line = __builtin_LINE()) {
  unsigned lane = emulated_lane();
  return emulated::exchange(mask, value, lane + by < 32 ? lane + by : lane, line);
}

template <class T> inline T __ldg(const T *p) { return *p; }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline float rsqrt(float x) { return rsqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((unsigned long long)a * b) >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}
static inline float __fdividef(float a, float b) { return fabsf(b) > 0x1p126f && fabsf(b) < 0x1p128f ? 0.0f * a : a / b; }
static inline double normcdf(double x) { return 0.5 * erfc(-x * 0.7071067811865476); }
static inline float normcdf(float x) { return (float)normcdf((double)x); }
static inline int atomicMax(int *at, int x) { int old = *at; if (x > old) *at = x; return old; }
static inline long long clock64() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000LL + now.tv_nsec;
}
static inline float __uint_as_float(unsigned x) { float y; memcpy(&y, &x, 4); return y; }
static inline float __int_as_float(int x) { float y; memcpy(&y, &x, 4); return y; }
static inline int __double2loint(double x) { int y; memcpy(&y, &x, 4); return y; }
static inline double __hiloint2double(int high, int low) {
  double y;
  uint64_t x = (uint64_t)(uint32_t)high << 32 | (uint32_t)low;
  memcpy(&y, &x, 8);
  return y;
}
static inline unsigned __float_as_uint(float x) { unsigned y; memcpy(&y, &x, 4); return y; }
template <class T> inline T min(T a, T b) { return b < a ? b : a; }
template <class T> inline T max(T a, T b) { return a < b ? b : a; }
