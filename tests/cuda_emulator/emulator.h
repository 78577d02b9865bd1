// What CUDA C++ and the PTX of device.cuh are on a host: included by device.cuh where EMULATED is defined.
//
// Everything that needs to know about other threads is a call to runtime.cpp; a thread is a fiber there. Every load and
// store of a kernel calls it too, since kernels are compiled as for ThreadSanitizer. What is missing here is a compile
// error: add the twin of a new function of device.cuh below, and the exchange between lanes, if it has one, to runtime.cpp.
//
// Twins take their caller's file and line as default arguments, so that a report names the line in the kernel.

#pragma once

#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>

// Inline, so that of a file with many kernels only the one that is asked for is compiled.
#define __global__ inline
#define __device__
#define __host__
#define __constant__ const
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define CLUSTER_OF(size)

#define EMULATOR_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

// --- vector types: copied as one vector, so that a misaligned one is seen ---

#define EMULATOR_VECTOR_2(name, type)                                               \
    struct __align__(2 * sizeof(type)) name {                                       \
        typedef type whole __attribute__((vector_size(2 * sizeof(type))));          \
        union {                                                                     \
            struct { type x, y; };                                                  \
            whole all;                                                              \
        };                                                                          \
        name() = default;                                                           \
        __forceinline__ name(type x, type y) : x(x), y(y) {}                        \
        __forceinline__ name(const name& other) : all(other.all) {}                 \
        __forceinline__ name& operator=(const name& other) { all = other.all; return *this; } \
    };                                                                              \
    static __forceinline__ name make_##name(type x, type y) { return name(x, y); }
#define EMULATOR_VECTOR_4(name, type)                                               \
    struct __align__(16) name {                                                     \
        typedef type whole __attribute__((vector_size(4 * sizeof(type))));          \
        union {                                                                     \
            struct { type x, y, z, w; };                                            \
            whole all;                                                              \
        };                                                                          \
        name() = default;                                                           \
        __forceinline__ name(type x, type y, type z, type w) : x(x), y(y), z(z), w(w) {} \
        __forceinline__ name(const name& other) : all(other.all) {}                 \
        __forceinline__ name& operator=(const name& other) { all = other.all; return *this; } \
    };                                                                              \
    static __forceinline__ name make_##name(type x, type y, type z, type w) { return name(x, y, z, w); }
EMULATOR_VECTOR_2(float2, float)
EMULATOR_VECTOR_2(int2, int)
EMULATOR_VECTOR_2(uint2, unsigned)
EMULATOR_VECTOR_2(double2, double)
EMULATOR_VECTOR_4(float4, float)
EMULATOR_VECTOR_4(int4, int)
EMULATOR_VECTOR_4(uint4, unsigned)

struct uchar4 {
    unsigned char x, y, z, w;
} __align__(4);
struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
};

// --- runtime.cpp ---

struct EmulatedD {
    float d[4];
};
struct EmulatedIntegers {
    int d[4];
};
struct EmulatedA {
    unsigned a[4];
};
struct EmulatedB {
    unsigned b[2];
};
struct EmulatedRows {
    const unsigned* at[4];
};

extern "C" {
__attribute__((const)) uint3 emulator_thread_index();
__attribute__((const)) uint3 emulator_block_index();
__attribute__((const)) dim3 emulator_block_dim();
__attribute__((const)) dim3 emulator_grid_dim();
__attribute__((const)) char* emulator_shared();
__attribute__((const)) unsigned emulator_cluster_rank();
void emulator_barrier(const char* file, int line);
void emulator_warp_barrier(const char* file, int line);
void emulator_cluster_barrier(const char* file, int line);
const void* emulator_cluster_peer(const void* shared, unsigned rank, const char* file, int line);
unsigned long long emulator_shuffle(unsigned long long bits, int how, int operand, const char* file, int line);
unsigned emulator_ballot(unsigned bit, const char* file, int line);
EmulatedRows emulator_rows(const void* row, const char* file, int line);
EmulatedD emulator_mma_tf32(EmulatedD d, EmulatedA a, EmulatedB b, const char* file, int line);
EmulatedD emulator_mma_half(EmulatedD d, EmulatedA a, EmulatedB b, const char* file, int line);
EmulatedIntegers emulator_mma_bytes(EmulatedIntegers d, EmulatedA a, EmulatedB b, const char* file, int line);
void emulator_copy(void* shared, const void* global, int bytes, bool valid, const char* file, int line);
void emulator_copy_commit();
void emulator_copy_wait(int groups);
void emulator_mbarrier_init(void* mbarrier, int count, const char* file, int line);
void emulator_mbarrier_arrive(void* mbarrier, int bytes, const char* file, int line);
void emulator_mbarrier_wait(void* mbarrier, unsigned parity, const char* file, int line);
void emulator_copy_bulk(void* shared, const void* global, int bytes, void* mbarrier, const char* file, int line);
unsigned long long emulator_matrix(const void* shared, const char* file, int line);
void emulator_warpgroup_multiply(void* d, int of_bytes, unsigned long long a, unsigned long long b, bool adds,
                                 const char* file, int line);
void emulator_warpgroup_commit(const char* file, int line);
void emulator_warpgroup_wait(void* d, const char* file, int line);
void emulator_warpgroup_registers(int count, const char* file, int line);
unsigned emulator_take_ticket(unsigned* counter, unsigned count, const char* file, int line);
unsigned emulator_atomic(unsigned* address, int how, unsigned operand, const char* file, int line);
}

#define threadIdx (emulator_thread_index())
#define blockIdx (emulator_block_index())
#define blockDim (emulator_block_dim())
#define gridDim (emulator_grid_dim())
#define warpSize 32
#define DYNAMIC_SHARED(name) char* const name = emulator_shared()

// --- CUDA C++'s own functions ---

static __forceinline__ void __syncthreads(EMULATOR_SITE) { emulator_barrier(file, line); }

static __forceinline__ void emulator_sync_warp(EMULATOR_SITE) { emulator_warp_barrier(file, line); }
#define __syncwarp(...) emulator_sync_warp()

// How a lane finds the lane that it reads: as runtime.cpp numbers the ways.
enum { EMULATOR_FROM, EMULATOR_XOR, EMULATOR_UP, EMULATOR_DOWN };

template <typename T>
static __forceinline__ T emulator_exchange(T value, int how, int operand, const char* file, int line) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 4 or 8 bytes");
    unsigned long long bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = emulator_shuffle(bits, how, operand, file, line);
    memcpy(&value, &bits, sizeof value);
    return value;
}
#define EMULATOR_SHUFFLE(name, how)                                                                       \
    template <typename T>                                                                                 \
    static __forceinline__ T name(unsigned mask, T value, int operand, EMULATOR_SITE) {                   \
        return emulator_exchange(value, mask == ~0u ? how : -1, operand, file, line);                     \
    }
EMULATOR_SHUFFLE(__shfl_sync, EMULATOR_FROM)
EMULATOR_SHUFFLE(__shfl_xor_sync, EMULATOR_XOR)
EMULATOR_SHUFFLE(__shfl_up_sync, EMULATOR_UP)
EMULATOR_SHUFFLE(__shfl_down_sync, EMULATOR_DOWN)

static __forceinline__ unsigned __ballot_sync(unsigned, int predicate, EMULATOR_SITE) {
    return emulator_ballot(predicate != 0, file, line);
}
static __forceinline__ int __any_sync(unsigned, int predicate, EMULATOR_SITE) {
    return emulator_ballot(predicate != 0, file, line) != 0;
}
static __forceinline__ int __all_sync(unsigned, int predicate, EMULATOR_SITE) {
    return emulator_ballot(predicate != 0, file, line) == ~0u;
}

enum { EMULATOR_ADD, EMULATOR_INC, EMULATOR_MAX, EMULATOR_MIN, EMULATOR_EXCHANGE, EMULATOR_OR };
#define EMULATOR_ATOMIC(name, how)                                                           \
    static __forceinline__ unsigned name(unsigned* address, unsigned value, EMULATOR_SITE) { \
        return emulator_atomic(address, how, value, file, line);                             \
    }
EMULATOR_ATOMIC(atomicAdd, EMULATOR_ADD)
EMULATOR_ATOMIC(atomicInc, EMULATOR_INC)
EMULATOR_ATOMIC(atomicMax, EMULATOR_MAX)
EMULATOR_ATOMIC(atomicMin, EMULATOR_MIN)
EMULATOR_ATOMIC(atomicExch, EMULATOR_EXCHANGE)
EMULATOR_ATOMIC(atomicOr, EMULATOR_OR)

// A fence orders nothing for the checks: blocks are ordered by take_ticket and cluster_sync alone.
static __forceinline__ void __threadfence() {}
static __forceinline__ void __threadfence_block() {}

static __forceinline__ unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
static __forceinline__ unsigned __float_as_uint(float x) { return __builtin_bit_cast(unsigned, x); }
static __forceinline__ float __uint_as_float(unsigned x) { return __builtin_bit_cast(float, x); }
static __forceinline__ int __float_as_int(float x) { return __builtin_bit_cast(int, x); }
static __forceinline__ float __int_as_float(int x) { return __builtin_bit_cast(float, x); }
static __forceinline__ long long __double_as_longlong(double x) { return __builtin_bit_cast(long long, x); }
static __forceinline__ double __longlong_as_double(long long x) { return __builtin_bit_cast(double, x); }
static __forceinline__ int __popc(unsigned x) { return __builtin_popcount(x); }
static __forceinline__ int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static __forceinline__ int __ffs(int x) { return __builtin_ffs(x); }
template <typename T>
static __forceinline__ T __ldg(const T* address) { return *address; }

static __forceinline__ float __fmul_rn(float a, float b) { return a * b; }
static __forceinline__ float __fadd_rn(float a, float b) { return a + b; }
static __forceinline__ float __fsub_rn(float a, float b) { return a - b; }
static __forceinline__ float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static __forceinline__ float __fdividef(float a, float b) { return a / b; }
static __forceinline__ float __fdiv_rn(float a, float b) { return a / b; }
static __forceinline__ float __fsqrt_rn(float a) { return sqrtf(a); }
static __forceinline__ double __dmul_rn(double a, double b) { return a * b; }
static __forceinline__ double __dadd_rn(double a, double b) { return a + b; }
static __forceinline__ float rsqrtf(float x) { return 1.0f / sqrtf(x); }
// The C library has functions of these names.
#define __expf expf
#define __logf logf
static __forceinline__ float sinpif(float x) { return (float)sin(M_PI * x); }
static __forceinline__ float cospif(float x) { return (float)cos(M_PI * x); }
static __forceinline__ void sincospif(float x, float* s, float* c) {
    *s = sinpif(x);
    *c = cospif(x);
}
#define EMULATOR_EXTREMES(type)                                              \
    static __forceinline__ type min(type a, type b) { return b < a ? b : a; } \
    static __forceinline__ type max(type a, type b) { return a < b ? b : a; }
EMULATOR_EXTREMES(int)
EMULATOR_EXTREMES(unsigned)
EMULATOR_EXTREMES(long long)
EMULATOR_EXTREMES(unsigned long long)

// --- the twins of device.cuh ---

// What an architecture lacks is an error where it is used, as with ptxas: not where it only stands in the text.
extern "C" void emulator_needs_sm_80() __attribute__((error("this needs an architecture from sm_80 on")));
extern "C" void emulator_needs_sm_90() __attribute__((error("this needs an architecture from sm_90 on")));
extern "C" void emulator_needs_sm_90a() __attribute__((error("this needs sm_90a")));
#if __CUDA_ARCH__ >= 800
#define EMULATOR_FROM_SM_80
#else
#define EMULATOR_FROM_SM_80 emulator_needs_sm_80();
#endif
#if __CUDA_ARCH__ >= 900
#define EMULATOR_FROM_SM_90
#else
#define EMULATOR_FROM_SM_90 emulator_needs_sm_90();
#endif
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define EMULATOR_SM_90A
#else
#define EMULATOR_SM_90A emulator_needs_sm_90a();
#endif

#if __CUDA_ARCH__ >= 800
static __forceinline__ void copy_async_16(void* shared, const void* global, bool valid, EMULATOR_SITE) {
    emulator_copy(shared, global, 16, valid, file, line);
}
static __forceinline__ void copy_async_4(void* shared, const void* global, bool valid, EMULATOR_SITE) {
    emulator_copy(shared, global, 4, valid, file, line);
}
static __forceinline__ void copy_async_commit() { emulator_copy_commit(); }
template <int N>
static __forceinline__ void copy_async_wait() { emulator_copy_wait(N); }
#else
static __forceinline__ void copy_async_16(void* shared, const void* global, bool valid) {
    *(float4*)shared = valid ? *(const float4*)global : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
}
static __forceinline__ void copy_async_4(void* shared, const void* global, bool valid) {
    *(float*)shared = valid ? *(const float*)global : 0.0f;
}
static __forceinline__ void copy_async_commit() {}
template <int N>
static __forceinline__ void copy_async_wait() {}
#endif

// As cvt.rn, ties to even, or before sm_90 as cvt.rna, away from zero; NaN and infinity stay.
static __forceinline__ unsigned to_tf32(float x) {
    EMULATOR_FROM_SM_80
    unsigned bits = __float_as_uint(x);
#if __CUDA_ARCH__ >= 900
    unsigned half = 0xfffu + (bits >> 13 & 1u);
#else
    unsigned half = 0x1000u;
#endif
    return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + half) & ~0x1fffu;
}
// As cvt.rn.f16.f32, to nearest and even.
static __forceinline__ unsigned to_half(float x) {
    unsigned bits = __float_as_uint(x), sign = bits >> 16 & 0x8000u, rest = bits & 0x7fffffffu;
    if (rest > 0x7f800000u) return 0x7fffu;
    if (rest >= 0x477ff000u) return sign | 0x7c00u;
    // A subnormal is a multiple of 2^-24.
    if (rest < 0x38800000u) return sign | (unsigned)rint(__uint_as_float(rest) * 16777216.0);
    return sign | ((rest + 0xfffu + (rest >> 13 & 1u)) >> 13) - (112u << 10);
}
static __forceinline__ float of_half(unsigned bits) {
    unsigned exponent = bits >> 10 & 31u, fraction = bits & 0x3ffu;
    float x = exponent == 0 ? fraction / 16777216.0f
                            : __uint_as_float((exponent == 31 ? 255u : exponent + 112u) << 23 | fraction << 13);
    return bits & 0x8000u ? -x : x;
}
static __forceinline__ void load_blocks(unsigned (&blocks)[4], const float* row, EMULATOR_SITE) {
    EmulatedRows rows = emulator_rows(row, file, line);
    for (int i = 0; i < 4; ++i) blocks[i] = rows.at[i][threadIdx.x % 4];
}
static __forceinline__ void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], EMULATOR_SITE) {
    EMULATOR_FROM_SM_80
    EmulatedD sum = {{d[0], d[1], d[2], d[3]}};
    sum = emulator_mma_tf32(sum, {{a[0], a[1], a[2], a[3]}}, {{b[0], b[1]}}, file, line);
    for (int i = 0; i < 4; ++i) d[i] = sum.d[i];
}

static __forceinline__ void mma_half(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], EMULATOR_SITE) {
    EMULATOR_FROM_SM_80
    EmulatedD sum = {{d[0], d[1], d[2], d[3]}};
    sum = emulator_mma_half(sum, {{a[0], a[1], a[2], a[3]}}, {{b[0], b[1]}}, file, line);
    for (int i = 0; i < 4; ++i) d[i] = sum.d[i];
}
static __forceinline__ void mma_bytes(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], EMULATOR_SITE) {
    EMULATOR_FROM_SM_80
    EmulatedIntegers sum = {{d[0], d[1], d[2], d[3]}};
    sum = emulator_mma_bytes(sum, {{a[0], a[1], a[2], a[3]}}, {{b[0], b[1]}}, file, line);
    for (int i = 0; i < 4; ++i) d[i] = sum.d[i];
}

static __forceinline__ word64 shared_matrix(const void* shared, EMULATOR_SITE) {
    EMULATOR_SM_90A
    return emulator_matrix(shared, file, line);
}
// Registers are memory here.
static __forceinline__ void warpgroup_fence() { EMULATOR_SM_90A }
// The registers' address is kept, and they are out of reach until warpgroup_wait names them.
static __forceinline__ void warpgroup_multiply_half(float (&d)[64], word64 a, word64 b, bool adds, EMULATOR_SITE) {
    EMULATOR_SM_90A
    emulator_warpgroup_multiply(d, false, a, b, adds, file, line);
}
static __forceinline__ void warpgroup_multiply_bytes(int (&d)[64], word64 a, word64 b, bool adds, EMULATOR_SITE) {
    EMULATOR_SM_90A
    emulator_warpgroup_multiply(d, true, a, b, adds, file, line);
}
static __forceinline__ void warpgroup_commit(EMULATOR_SITE) {
    EMULATOR_SM_90A
    emulator_warpgroup_commit(file, line);
}
static __forceinline__ void warpgroup_wait(float (&d)[64], EMULATOR_SITE) {
    EMULATOR_SM_90A
    emulator_warpgroup_wait(d, file, line);
}
static __forceinline__ void warpgroup_wait(int (&d)[64], EMULATOR_SITE) {
    EMULATOR_SM_90A
    emulator_warpgroup_wait(d, file, line);
}
template <int REGISTERS>
static __forceinline__ void give_registers(EMULATOR_SITE) {
    EMULATOR_SM_90A
    emulator_warpgroup_registers(REGISTERS, file, line);
}
template <int REGISTERS>
static __forceinline__ void take_registers(EMULATOR_SITE) {
    EMULATOR_SM_90A
    emulator_warpgroup_registers(REGISTERS, file, line);
}

static __forceinline__ void mbarrier_init(word64* mbarrier, int count, EMULATOR_SITE) {
    EMULATOR_FROM_SM_90
    emulator_mbarrier_init(mbarrier, count, file, line);
}
static __forceinline__ void mbarrier_arrive(word64* mbarrier, EMULATOR_SITE) {
    EMULATOR_FROM_SM_90
    emulator_mbarrier_arrive(mbarrier, 0, file, line);
}
static __forceinline__ void mbarrier_arrive_expecting(word64* mbarrier, int bytes, EMULATOR_SITE) {
    EMULATOR_FROM_SM_90
    emulator_mbarrier_arrive(mbarrier, bytes, file, line);
}
static __forceinline__ void mbarrier_wait(word64* mbarrier, unsigned parity, EMULATOR_SITE) {
    EMULATOR_FROM_SM_90
    emulator_mbarrier_wait(mbarrier, parity, file, line);
}
static __forceinline__ void copy_bulk(void* shared, const void* global, int bytes, word64* mbarrier, EMULATOR_SITE) {
    EMULATOR_FROM_SM_90
    emulator_copy_bulk(shared, global, bytes, mbarrier, file, line);
}

static __forceinline__ unsigned kept_word(unsigned word) { return word; }
static __forceinline__ unsigned cluster_rank() {
    EMULATOR_FROM_SM_90
    return emulator_cluster_rank();
}
static __forceinline__ void cluster_sync(EMULATOR_SITE) {
    EMULATOR_FROM_SM_90
    emulator_cluster_barrier(file, line);
}
static __forceinline__ void cluster_leave(EMULATOR_SITE) {
    EMULATOR_FROM_SM_90
    emulator_cluster_barrier(file, line);
}
static __forceinline__ const float* cluster_peer(const float* shared, unsigned rank, EMULATOR_SITE) {
    EMULATOR_FROM_SM_90
    return (const float*)emulator_cluster_peer(shared, rank, file, line);
}

static __forceinline__ bool take_ticket(unsigned* counter, unsigned count, unsigned* shared, EMULATOR_SITE) {
    emulator_barrier(file, line);
    if (threadIdx.x == 0) *shared = emulator_take_ticket(counter, count, file, line);
    emulator_barrier(file, line);
    return *shared == count - 1;
}

template <typename T>
static __forceinline__ T shuffle_xor(T value, int lanes, EMULATOR_SITE) {
    return emulator_exchange(value, EMULATOR_XOR, lanes, file, line);
}
template <typename T>
static __forceinline__ T shuffle_down(T value, int lanes, EMULATOR_SITE) {
    return emulator_exchange(value, EMULATOR_DOWN, lanes, file, line);
}

static __forceinline__ float exp2_fast(float x) {
    float y = exp2f(x);
    return y < 1.17549435e-38f ? 0.0f : y;
}
static __forceinline__ float multiply_rounded(float a, float b) { return a * b; }
static __forceinline__ float add_rounded(float a, float b) { return a + b; }
static __forceinline__ unsigned bits_of(float x) { return __float_as_uint(x); }
static __forceinline__ float float_of(unsigned bits) { return __uint_as_float(bits); }

// --- a kernel's entry: EMULATED_KERNEL(name expression), written after the kernel's text ---

struct EmulatedParameter {
    char kind;      // p pointer, b bool, i and u integers, f floating point, s a struct
    char pointee;   // the same of what a pointer points to, v for void and functions
    int size, pointee_size;
};

template <typename T>
constexpr char emulated_kind() {
    if (std::is_pointer<T>::value) return 'p';
    if (std::is_same<T, bool>::value) return 'b';
    if (std::is_floating_point<T>::value) return 'f';
    if (std::is_integral<T>::value || std::is_enum<T>::value) return std::is_signed<T>::value ? 'i' : 'u';
    return 's';
}
template <typename T>
struct EmulatedSize {
    static constexpr int value = sizeof(T);
};
template <>
struct EmulatedSize<void> {
    static constexpr int value = 0;
};
template <typename T>
EmulatedParameter emulated_parameter() {
    typedef typename std::remove_cv<typename std::remove_pointer<T>::type>::type Pointee;
    return {emulated_kind<T>(), std::is_void<Pointee>::value ? 'v' : emulated_kind<Pointee>(), (int)sizeof(T),
            EmulatedSize<Pointee>::value};
}
template <typename... P>
__attribute__((no_sanitize("thread"))) int emulated_signature(void (*)(P...), EmulatedParameter* out) {
    EmulatedParameter all[] = {emulated_parameter<P>()..., {}};
    for (int i = 0; i < (int)sizeof...(P); ++i) out[i] = all[i];
    return sizeof...(P);
}
template <typename... P, std::size_t... I>
__attribute__((no_sanitize("thread"))) void emulated_call(void (*kernel)(P...), void** values,
                                                          std::index_sequence<I...>) {
    kernel(*(typename std::remove_cv<P>::type*)values[I]...);
}
template <typename... P>
__attribute__((no_sanitize("thread"))) void emulated_call(void (*kernel)(P...), void** values) {
    emulated_call(kernel, values, std::make_index_sequence<sizeof...(P)>());
}

#define EMULATED_KERNEL(...)                                                                              \
    extern "C" __attribute__((visibility("default"), no_sanitize("thread"))) int emulated_parameters(     \
        EmulatedParameter* out) {                                                                         \
        return emulated_signature(&__VA_ARGS__, out);                                                     \
    }                                                                                                     \
    extern "C" __attribute__((visibility("default"), no_sanitize("thread"))) void emulated_entry(void** values) { \
        emulated_call(&__VA_ARGS__, values);                                                              \
    }
