// What kernels may use of the machine: the one file with PTX in it.
//
// The same text goes through NVRTC, which has no headers, and through a host compiler in the tests, where EMULATED is
// defined and emulator.h gives each function here a twin. Hence: no <...> includes, `unsigned` for 32-bit words,
// constants of our own. Warp operations are called by whole warps only.

#pragma once

typedef unsigned char byte;
typedef unsigned long long word64;

#ifdef EMULATED
#include "emulator.h"
#else

#define DYNAMIC_SHARED(name) extern __shared__ __align__(1024) char name[]
#define CLUSTER_OF(size) __cluster_dims__(1, 1, size)

__device__ __forceinline__ unsigned shared_address(const void* pointer) {
    return (unsigned)__cvta_generic_to_shared(pointer);
}

// --- copies from global to shared memory that are waited for later ---

// Copies 16 bytes (both pointers 16-byte aligned), or fills with zeros where `valid` is false: then `global` is not
// read, but must still be a pointer into the array. Before sm_80 the copy is made at once.
__device__ __forceinline__ void copy_async_16(void* shared, const void* global, bool valid) {
#if __CUDA_ARCH__ >= 800
    int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(bytes)
                 : "memory");
#else
    *(float4*)shared = valid ? *(const float4*)global : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#endif
}

// The same for 4 bytes.
__device__ __forceinline__ void copy_async_4(void* shared, const void* global, bool valid) {
#if __CUDA_ARCH__ >= 800
    int bytes = valid ? 4 : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(bytes)
                 : "memory");
#else
    *(float*)shared = valid ? *(const float*)global : 0.0f;
#endif
}

// Closes a group of this thread's copies.
__device__ __forceinline__ void copy_async_commit() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most N of this thread's groups are under way. Other threads see the data after a barrier.
template <int N>
__device__ __forceinline__ void copy_async_wait() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

// --- tensor cores, sm_80 on ---

// Rounds to TF32's 10 bits of mantissa; the result is the bits of a float. Ties go to even: one instruction from sm_90 on;
// before it there is but the rounding with ties away from zero.
__device__ __forceinline__ unsigned to_tf32(float x) {
    unsigned bits;
#if __CUDA_ARCH__ >= 900
    asm("cvt.rn.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
#else
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
#endif
    return bits;
}

// Rounds to half precision, to nearest and even; subnormals stay, what is too large is infinite.
__device__ __forceinline__ unsigned to_half(float x) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}
__device__ __forceinline__ float of_half(unsigned bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"((unsigned short)bits));
    return x;
}

// Loads four 8 x 4 blocks of 32-bit numbers from shared memory: lanes 8i … 8i + 7 point to the rows of block i, 16 bytes
// each and aligned to that; with g = lane / 4 and t = lane % 4 a lane gets (g, t) of each block.
__device__ __forceinline__ void load_blocks(unsigned (&blocks)[4], const float* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(blocks[0]), "=r"(blocks[1]), "=r"(blocks[2]), "=r"(blocks[3])
                 : "r"(shared_address(row)));
}

// d (16 x 8) += a (16 x 8) · b (8 x 8) in TF32. With g = lane / 4 and t = lane % 4 a lane holds
// a: (g, t) (g + 8, t) (g, t + 4) (g + 8, t + 4);  b, row k and column n: (t, g) (t + 4, g);
// d: (g, 2t) (g, 2t + 1) (g + 8, 2t) (g + 8, 2t + 1).
__device__ __forceinline__ void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The same of half precision, d (16 x 8) += a (16 x 16) · b (16 x 8), and of unsigned bytes, in integers that must not
// overflow, d += a (16 x 32) · b (32 x 8). Where TF32 has one number along K a word holds two, or four, the first lowest.
__device__ __forceinline__ void mma_half(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void mma_bytes(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.u8.u8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// --- warpgroups: four warps that multiply together, sm_90a ---

// Describes to the tensor cores rows of 64 bytes, swizzled (swizzled_64) and the first aligned to 512; 32 bytes further along
// K are 2 more.
__device__ __forceinline__ word64 shared_matrix(const void* shared) {
    constexpr word64 EIGHT_ROWS = 512 / 16, OF_64_BYTES = 2;
    return (shared_address(shared) >> 4 & 0x3fffu) | 1ull << 16 | EIGHT_ROWS << 32 | OF_64_BYTES << 62;
}

#define SIXTEEN_OF(constraint, d, i)                                                                            \
    constraint(d[i]), constraint(d[i + 1]), constraint(d[i + 2]), constraint(d[i + 3]), constraint(d[i + 4]),   \
        constraint(d[i + 5]), constraint(d[i + 6]), constraint(d[i + 7]), constraint(d[i + 8]),                 \
        constraint(d[i + 9]), constraint(d[i + 10]), constraint(d[i + 11]), constraint(d[i + 12]),              \
        constraint(d[i + 13]), constraint(d[i + 14]), constraint(d[i + 15])
#define SIXTY_FOUR_OF(constraint, d) \
    SIXTEEN_OF(constraint, d, 0), SIXTEEN_OF(constraint, d, 16), SIXTEEN_OF(constraint, d, 32), SIXTEEN_OF(constraint, d, 48)
#define OPERANDS_0_TO_63                                                          \
    "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20," \
    "%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,"    \
    "%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,"    \
    "%57,%58,%59,%60,%61,%62,%63}"

// Before a warpgroup's first multiplication into registers that it wrote or read otherwise.
__device__ __forceinline__ void warpgroup_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// d (64 x 128) = a (64 x 16) · b (16 x 128) of half precision, or, of unsigned bytes in integers that must not overflow,
// a (64 x 32) · b (32 x 128); added to d where `adds`. a's rows and b's columns are rows in shared memory, as shared_matrix
// describes them. With g = lane / 4 and t = lane % 4, d[4 j + e] of warp w is (16 w + g + e / 2 * 8, 8 j + 2 t + e % 2).
// It is under way until warpgroup_wait.
__device__ __forceinline__ void warpgroup_multiply_half(float (&d)[64], word64 a, word64 b, bool adds) {
    asm volatile("{.reg .pred adds; setp.ne.b32 adds, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 " OPERANDS_0_TO_63 ", %64, %65, adds, 1, 1, 0, 0;}"
                 : SIXTY_FOUR_OF("+f", d)
                 : "l"(a), "l"(b), "r"((int)adds));
}
__device__ __forceinline__ void warpgroup_multiply_bytes(int (&d)[64], word64 a, word64 b, bool adds) {
    asm volatile("{.reg .pred adds; setp.ne.b32 adds, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k32.s32.u8.u8 " OPERANDS_0_TO_63 ", %64, %65, adds;}"
                 : SIXTY_FOUR_OF("+r", d)
                 : "l"(a), "l"(b), "r"((int)adds));
}

// Closes a group of the warpgroup's multiplications.
__device__ __forceinline__ void warpgroup_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits until all that this warpgroup multiplies is done; named are the registers, so that nothing uses them before.
__device__ __forceinline__ void warpgroup_wait(float (&d)[64]) {
    asm volatile("wgmma.wait_group.sync.aligned 0;" : SIXTY_FOUR_OF("+f", d)::"memory");
}
__device__ __forceinline__ void warpgroup_wait(int (&d)[64]) {
    asm volatile("wgmma.wait_group.sync.aligned 0;" : SIXTY_FOUR_OF("+r", d)::"memory");
}

// Gives registers of this warpgroup's threads back, or takes them, to have so many.
template <int REGISTERS>
__device__ __forceinline__ void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}
template <int REGISTERS>
__device__ __forceinline__ void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

// --- mbarriers: words of shared memory that count arrivals, and the bytes of copies, sm_90 on ---

// By one thread, for so many arrivals a phase; a barrier of the block must come before anybody uses it.
__device__ __forceinline__ void mbarrier_init(word64* mbarrier, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\nfence.mbarrier_init.release.cluster;" ::"r"(
                     shared_address(mbarrier)),
                 "r"(count)
                 : "memory");
}

// What this thread has read or written before is past for those who wait for the phase.
__device__ __forceinline__ void mbarrier_arrive(word64* mbarrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(mbarrier)) : "memory");
}

// The same of a thread that starts copies of so many bytes: the phase ends when they are there too.
__device__ __forceinline__ void mbarrier_arrive_expecting(word64* mbarrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(mbarrier)), "r"(bytes)
                 : "memory");
}

// Waits until the phase of that parity, of 0, 1, 2 …, has ended; the phase before the first counts as one that has.
__device__ __forceinline__ void mbarrier_wait(word64* mbarrier, unsigned parity) {
    asm volatile("{.reg .pred over;\n"
                 "again: mbarrier.try_wait.parity.shared::cta.b64 over, [%0], %1;\n"
                 "@over bra done;\nbra again;\ndone:}" ::"r"(shared_address(mbarrier)),
                 "r"(parity)
                 : "memory");
}

// Copies a multiple of 16 bytes, both ends aligned to 16, that an mbarrier expects.
__device__ __forceinline__ void copy_bulk(void* shared, const void* global, int bytes, word64* mbarrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address(shared)),
                 "l"(global), "r"(bytes), "r"(shared_address(mbarrier))
                 : "memory");
}

// --- a cluster of blocks along z, sm_90 on ---

__device__ __forceinline__ unsigned cluster_rank() {
    unsigned rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

// A barrier of all threads of the cluster; what they wrote to shared memory before it is seen after it.
__device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// Waits until all blocks of the cluster have come here, so that none reads another's memory any more. It orders no writes,
// and so need not wait for them.
__device__ __forceinline__ void cluster_leave() {
    asm volatile("barrier.cluster.arrive.relaxed.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// Where another block of the cluster has what this one has at `shared`. Valid until that block ends: a cluster_leave
// must come after the last use.
__device__ __forceinline__ const float* cluster_peer(const float* shared, unsigned rank) {
    word64 peer;
    asm("mapa.u64 %0, %1, %2;" : "=l"(peer) : "l"(shared), "r"(rank));
    return (const float*)peer;
}

// --- blocks that meet through global memory ---

// Called by all threads of a block after the block's last write to global memory. True in the last of `count` blocks to
// call it on this counter: it may read what the others wrote, in any order it likes. The counter is back at 0 then.
// `shared` is a word of shared memory that is used for nothing else at the time.
__device__ __forceinline__ bool take_ticket(unsigned* counter, unsigned count, unsigned* shared) {
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) *shared = atomicInc(counter, count - 1);
    __syncthreads();
    bool last = *shared == count - 1;
    __threadfence();
    return last;
}

// --- warps ---

__device__ __forceinline__ float shuffle_xor(float value, int lanes) { return __shfl_xor_sync(~0u, value, lanes); }
__device__ __forceinline__ double shuffle_xor(double value, int lanes) { return __shfl_xor_sync(~0u, value, lanes); }
__device__ __forceinline__ int shuffle_xor(int value, int lanes) { return __shfl_xor_sync(~0u, value, lanes); }

// --- arithmetic ---

// 2^x, x <= 0, to 2 ulp; subnormal results are 0.
__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// A product and a sum that the compiler does not join: rounded one after the other.
__device__ __forceinline__ float multiply_rounded(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ float add_rounded(float a, float b) { return __fadd_rn(a, b); }

// The same word; but the compiler, that could find it again from what it is made of, keeps it.
__device__ __forceinline__ unsigned kept_word(unsigned word) {
    asm("" : "+r"(word));
    return word;
}

__device__ __forceinline__ unsigned bits_of(float x) { return __float_as_uint(x); }
__device__ __forceinline__ float float_of(unsigned bits) { return __uint_as_float(bits); }

#endif

#define INFINITE float_of(0x7f800000u)

__device__ __forceinline__ bool is_nan(float x) { return x != x; }
__device__ __forceinline__ bool is_finite(double x) { return x - x == 0.0; }
__device__ __forceinline__ bool is_finite(float x) { return x - x == 0.0f; }
__device__ __forceinline__ int divide_up(int a, int b) { return (a + b - 1) / b; }
__device__ __forceinline__ int minimum(int a, int b) { return a < b ? a : b; }

// Rows of 64 bytes in shared memory whose four sixteens change places in this way, eight rows being aligned to 512 bytes, are
// read by tensor cores, or by ldmatrix, without bank conflicts.
__device__ constexpr int swizzled_64(int row, int sixteen) { return sixteen ^ row / 2 % 4; }

// The least stride of rows of n words that is an odd multiple of 8: four rows then lie in four different octets of banks.
__device__ constexpr int across_stride(int n) { return (n + 7) / 8 % 2 ? (n + 7) / 8 * 8 : (n + 7) / 8 * 8 + 8; }
