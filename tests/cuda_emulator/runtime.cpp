// The emulated device: memory with a shadow, threads as fibers, and the checks that every load and store goes through.
//
// Time. A block has a clock that moves on at every barrier of the block, of one of its warps or of its cluster. An access
// of thread u, made at time t, is ordered before what thread v does now if t is before the block's last barrier, or if u
// and v are of one warp and t is before that warp's last __syncwarp.
//
// Blocks are ordered by tickets and cluster barriers only: a block knows of every other block of its launch until when
// it has seen it (`seen`, a vector clock). Launches are ordered unless one is in a branch and the other beside it.
//
// Shadow. Each 4 bytes of memory have one word for their last write and one for their reads since:
//     bits 63-37 the block (numbered through, over all launches), 36-17 time, 16-7 thread, 6-3 which bytes, 2-0 kind
// Reads by several threads of a block are joined to "several of one warp" or "several warps"; reads by several blocks
// are a set, which is numbered, the number taking the place of time and thread. Of two threads that touch different
// bytes of one word only the last is remembered.

#include <link.h>
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

typedef uint64_t u64;
typedef uint32_t u32;
typedef uint16_t u16;
typedef unsigned char byte;

#define EXPORT extern "C" __attribute__((visibility("default")))
#define HOT __attribute__((hot))
#define COLD __attribute__((cold, noinline))

// ---------------------------------------------------------------- memory

static const u64 SLOT = 1 << 20;             // shared memory of one block, with what lies behind it
static const int MAX_CLUSTER = 16;
static const u64 SHARED_END = SLOT * MAX_CLUSTER;
static const u64 ARENA = 2 * SHARED_END;     // where global memory begins
static const u64 GUARD = 1ull << 34;         // addresses on both sides that no one has: 32-bit indices end there
static const u64 ALIGNMENT = 512;            // as CuPy's
static const u64 RED_ZONE = 512;

struct Shadow {
    u64 write, read;
};
enum : u16 { WRITTEN = 0x0f, LIVE = 0xf0, FREED = 0x100, IN_FLIGHT = 0x200 };

static byte* base;      // slots of shared memory, then the arena
static u64 space;       // bytes from base on
static Shadow* shadows; // one a word
static u16* states;     // one a word

static std::map<u64, u64> holes;             // free regions of the arena: offset, size
static std::map<u64, u64> arrays;            // offset, bytes
static u64 next_hole = ARENA, live_bytes;

// ---------------------------------------------------------------- blocks and threads

enum Status { RUNNABLE, AT_BARRIER, AT_CLUSTER, AT_WARP, DONE };
enum WarpKind { WARP_BARRIER, SHUFFLE, BALLOT, ROWS, MMA_TF32, MMA_HALF, MMA_BYTES };

struct Vector3 {
    u32 x, y, z;
};
struct Copy {
    byte* to;
    const byte* from;
    int bytes, group;
    bool valid;
};
struct Fiber {
    void* stack_pointer;
    byte *stack_low, *stack_high;
    Status status;
    const char* file;
    int line;
    std::vector<Copy> copies;
    int group;
#if !defined(__x86_64__)
    ucontext_t context;
#endif
};
struct Lane {
    u64 bits;
    int how, operand;
    union {
        float d[4];
        int integers[4];
    };
    u32 a[4], b[2];
    const u32* rows[4];
};
struct Warp {
    int arrived, kind;
    u32 time;
    const char* file;
    int line;
    Lane lanes[32];
};
struct Block {
    u64 instance;
    u32 time, barrier_time;
    Vector3 index;
    u32 rank;
    byte* shared;
    Fiber* fibers;
    std::vector<Warp> warps;
    std::vector<u32> seen;    // by block of this launch: its times before this one are ordered before now
    u32 cluster_epoch, peer_epoch;
    bool was_read;
    const char* peer_file;
    int peer_line;
};

static Block blocks[MAX_CLUSTER];
static std::vector<Fiber> fibers;
static byte* stacks;
static u64 stacks_made;
static const u64 STACK = 256 * 1024;

static void (*entry)(void**);
static void** values;
static Vector3 grid;
static u32 num_threads, num_warps, cluster_size, shared_bytes;
static bool checked;
static u64 image_low, image_high;            // the kernel's own constants lie here

static Block* block;
static Fiber* fiber;
static Warp* warp;
static u32 thread;
static u64 key;                              // of an access now, without its bytes and kind
static u64 stack_low;
static const u64 PATIENCE = 1ull << 27;
static u64 patience;                         // accesses that a thread may yet make before it must have met the others
static void* scheduler;
#if !defined(__x86_64__)
static ucontext_t scheduler_context;
#endif

static u64 next_instance = 1, launch_first = 1, window = 1, cluster_first = 1;
static const u64 MAX_INSTANCE = (1ull << 27) - (1ull << 22);
static u32 random_state = 1;

// ---------------------------------------------------------------- reports

static char report[2048];
static char report_file[512];
static int report_line;
static u64 report_address;
static bool failed;

static u32 next_random() {
    random_state = random_state * 1664525u + 1013904223u;
    return random_state >> 8;
}

static void leave();

static COLD void fail(const void* address, const char* file, int line, const char* format, ...) {
    if (failed) return;
    failed = true;
    va_list list;
    va_start(list, format);
    vsnprintf(report, sizeof report, format, list);
    va_end(list);
    report_address = (u64)address;
    snprintf(report_file, sizeof report_file, "%s", file ? file : "");
    report_line = line;
    if (fiber) leave();
}

EXPORT const char* emulator_report(u64* address, const char** file, int* line) {
    *address = report_address;
    *file = report_file;
    *line = report_line;
    return report;
}

// ---------------------------------------------------------------- the order of blocks and launches

struct Launch {
    u64 first;
    int stream;
};
static std::vector<Launch> launches;         // since the first open branch
static std::vector<u64> forks;               // by branch: the first block that is not ordered before it
static int stream, open_branches;

struct Member {
    u64 instance;
    u32 time;
};
static std::vector<std::vector<Member>> sets;
struct Transition {
    u64 from, by;
    u32 to;
};
static const int TRANSITIONS = 4096;
static Transition transitions[TRANSITIONS];

static void forget_sets() {
    sets.clear();
    memset(transitions, 0, sizeof transitions);
}

EXPORT int emulator_branch() {
    if (!open_branches++) {
        window = next_instance;
        launches.clear();
        forks.assign(1, 0);
        forget_sets();
    }
    forks.push_back(next_instance);
    return stream = (int)forks.size() - 1;
}
EXPORT void emulator_branch_end() { stream = 0; }
EXPORT void emulator_join() {
    open_branches = 0;
    window = next_instance;
    forget_sets();
}

static int stream_of(u64 instance) {
    size_t low = 0, high = launches.size();
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        (launches[middle].first <= instance ? low : high) = middle;
    }
    return launches[low].stream;
}

static HOT bool is_ordered(u64 instance, u32 time) {
    if (instance < window) return true;
    if (instance >= launch_first) {
        u64 number = instance - launch_first;
        return number < block->seen.size() && time < block->seen[number];
    }
    int other = stream_of(instance);
    return other == stream || (other == 0 && instance < forks[stream]);
}

// ---------------------------------------------------------------- the check of one word

static inline u64 instance_in(u64 record) { return record >> 37; }
static inline u32 time_in(u64 record) { return record >> 17 & 0xfffff; }
static inline u32 thread_in(u64 record) { return record >> 7 & 0x3ff; }
static inline u32 bytes_in(u64 record) { return record & 0x78; }
enum : u64 { ATOMIC = 1 };                               // kind of a write
enum : u64 { ONE = 0, ONE_WARP = 1, WARPS = 2, SET = 3 };  // kinds of reads

// Is an access of this block, made at that time by that thread or its warp, ordered before now?
static inline bool is_past(u32 time, u32 by, bool same_warp_counts) {
    if (time < block->barrier_time) return true;
    return same_warp_counts && by / 32 == thread / 32 && time < warp->time;
}

static const char* where(u64 offset, char* text) {
    if (offset < SHARED_END) {
        u64 slot = offset / SLOT;
        if (slot == block->rank)
            sprintf(text, "byte %llu of shared memory", (unsigned long long)(offset % SLOT));
        else
            sprintf(text, "byte %llu of the shared memory of block %llu of the cluster",
                    (unsigned long long)(offset % SLOT), (unsigned long long)slot);
        return text;
    }
    auto array = arrays.upper_bound(offset);
    if (array == arrays.begin()) return strcpy(text, "global memory");
    --array;
    sprintf(text, "byte %lld of an array of %llu bytes", (long long)(offset - array->first),
            (unsigned long long)array->second);
    return text;
}

static COLD void fail_state(u64 word, u32 mask, bool writes, const void* address) {
    char text[200];
    u16 state = states[word];
    u64 offset = word * 4;
    for (int i = 3; i >= 0; --i)
        if (mask >> i & 1 && !(state >> (4 + i) & 1)) offset = word * 4 + i;
    bool is_shared = offset < SHARED_END;
    const char* verb = writes ? "writes" : "reads";
    if (state & FREED)
        fail(address, 0, 0, "thread %u %s %s that was freed", thread, verb, where(offset, text));
    else if (((state & LIVE) >> 4 & mask) != mask) {
        if (is_shared)
            fail(address, 0, 0, "thread %u %s out of bounds: %s, of which the block has %u bytes", thread, verb,
                 where(offset, text), shared_bytes);
        else
            fail(address, 0, 0, "thread %u %s out of bounds: %s", thread, verb, where(offset, text));
    } else if (state & IN_FLIGHT)
        fail(address, 0, 0, "thread %u %s %s, where a copy is under way: copy_async_wait, or a barrier before the copy, is missing", thread, verb,
             where(offset, text));
    else
        fail(address, 0, 0, "thread %u reads %s, which nobody wrote", thread, where(offset, text));
}

static COLD void fail_race(u64 word, bool writes, bool other_writes, u64 record, const void* address) {
    char text[200], who[60];
    u64 instance = instance_in(record);
    const char* verb = writes ? "writes" : "reads";
    const char* other_verb = other_writes ? "wrote" : "read";
    where(word * 4, text);
    if ((record & 7) == SET && !other_writes) {
        fail(address, 0, 0, "thread %u of block (%u, %u, %u) writes %s that other blocks read, and nothing orders them",
             thread, block->index.x, block->index.y, block->index.z, text);
        return;
    }
    if (instance == block->instance) {
        if (!other_writes && (record & 7) != ONE)
            strcpy(who, "other threads");
        else
            sprintf(who, "thread %u", thread_in(record));
        fail(address, 0, 0, "a race: thread %u of block (%u, %u, %u) %s %s that %s %s, with no barrier between", thread,
             block->index.x, block->index.y, block->index.z, verb, text, who, other_verb);
    } else if (instance >= launch_first)
        fail(address, 0, 0,
             "blocks touch each other's data: thread %u of block (%u, %u, %u) %s %s that block %llu of this launch %s, "
             "and nothing orders them",
             thread, block->index.x, block->index.y, block->index.z, verb, text,
             (unsigned long long)(instance - launch_first), other_verb);
    else
        fail(address, 0, 0, "launches that run beside each other touch the same data: this one %s %s that another %s",
             verb, text, other_verb);
}

static HOT void read_by_blocks(Shadow& shadow, u64 record, u32 mask);

static inline HOT void check_read(u64 word, u32 mask, const void* address) {
    u16 state = states[word], needed = mask | mask << 4;
    if (__builtin_expect((state & (needed | FREED | IN_FLIGHT)) != needed, 0)) return fail_state(word, mask, false, address);
    Shadow& shadow = shadows[word];
    u64 first = word < SHARED_END / 4 ? cluster_first : window;
    u64 bits = (u64)mask << 3;
    u64 write = shadow.write;
    if (instance_in(write) >= first && write & bits) {
        if (instance_in(write) == block->instance) {
            if (thread_in(write) != thread && !is_past(time_in(write), thread_in(write), true))
                return fail_race(word, false, true, write, address);
        } else if (!is_ordered(instance_in(write), time_in(write)))
            return fail_race(word, false, true, write, address);
    }
    u64 read = shadow.read, mine = key | bits;
    if (read == mine) return;
    if (instance_in(read) < first)
        shadow.read = mine;
    else if (instance_in(read) != block->instance || (read & 7) == SET)
        read_by_blocks(shadow, read, mask);
    else {
        u32 by = thread_in(read);
        u64 kind = read & 7;
        bool alone = by == thread && kind == ONE;
        if (is_past(time_in(read), by, kind != WARPS) || !(alone || read & bits))
            shadow.read = mine;
        else
            shadow.read = mine | bytes_in(read) | (alone ? ONE : by / 32 == thread / 32 && kind != WARPS ? ONE_WARP : WARPS);
    }
}

static inline HOT void check_write(u64 word, u32 mask, u64 kind, const void* address) {
    u16 state = states[word];
    u16 needed = mask << 4;
    if (__builtin_expect((state & (needed | FREED | IN_FLIGHT)) != needed, 0)) return fail_state(word, mask, true, address);
    Shadow& shadow = shadows[word];
    u64 first = word < SHARED_END / 4 ? cluster_first : window;
    u64 bits = (u64)mask << 3;
    u64 write = shadow.write;
    if (instance_in(write) >= first && write & bits && !(write & kind & ATOMIC)) {
        if (instance_in(write) == block->instance) {
            if (thread_in(write) != thread && !is_past(time_in(write), thread_in(write), true))
                return fail_race(word, true, true, write, address);
        } else if (!is_ordered(instance_in(write), time_in(write)))
            return fail_race(word, true, true, write, address);
    }
    u64 read = shadow.read;
    if (instance_in(read) >= first && read & bits) {
        if ((read & 7) == SET) {
            for (const Member& member : sets[read >> 7 & 0x3fffffff])
                if (member.instance != block->instance && !is_ordered(member.instance, member.time))
                    return fail_race(word, true, false, read, address);
        } else if (instance_in(read) == block->instance) {
            if (!(thread_in(read) == thread && (read & 7) == ONE) &&
                !is_past(time_in(read), thread_in(read), (read & 7) != WARPS))
                return fail_race(word, true, false, read, address);
        } else if (!is_ordered(instance_in(read), time_in(read)))
            return fail_race(word, true, false, read, address);
    }
    if (write >> 7 == key >> 7) bits |= bytes_in(write);
    shadow.write = key | bits | kind;
    states[word] = state | mask;
}

// Another block read this word too, and is not ordered before this one: from now on a set of blocks did.
static HOT void read_by_blocks(Shadow& shadow, u64 record, u32 mask) {
    if ((record & 7) == SET && instance_in(record) == block->instance) {
        // The last of a set is the block that made it.
        if (sets[record >> 7 & 0x3fffffff].back().time == block->time) {
            shadow.read |= mask << 3;
            return;
        }
    }
    u64 by = block->instance << 20 | block->time;
    u64 from = record & ~(u64)0x78;
    if ((record & 7) != SET) from &= ~(u64)0x1ffff;    // the thread matters to no other block
    u64 bytes = bytes_in(record) | mask << 3;
    Transition& known = transitions[(from * 0x9e3779b97f4a7c15ull ^ by * 0xc2b2ae3d27d4eb4full) >> 52];
    if (!(known.from == from && known.by == by)) {
        std::vector<Member> members;
        if ((record & 7) == SET) {
            for (const Member& member : sets[record >> 7 & 0x3fffffff])
                if (member.instance != block->instance && !is_ordered(member.instance, member.time)) members.push_back(member);
        } else if (!is_ordered(instance_in(record), time_in(record)))
            members.push_back({instance_in(record), time_in(record)});
        u32 to = ~0u;
        if (!members.empty()) {
            members.push_back({block->instance, block->time});
            to = (u32)sets.size();
            sets.push_back(members);
        }
        known = {from, by, to};
    }
    if (known.to == ~0u)
        shadow.read = key | (u64)mask << 3;
    else
        shadow.read = block->instance << 37 | (u64)known.to << 7 | bytes | SET;
}

static COLD void fail_address(u64 address, int size, bool writes, const void* from) {
    const char* verb = writes ? "writes" : "reads";
    if (address < 65536)
        fail(from, 0, 0, "thread %u %s through a null pointer", thread, verb);
    else if (address + GUARD >= (u64)base && address < (u64)base + space + GUARD)
        fail(from, 0, 0, "thread %u %s out of bounds: %d bytes far from any array", thread, verb, size);
    else
        fail(from, 0, 0, "thread %u %s memory that is not the device's", thread, verb);
}

template <int SIZE, bool WRITES>
static inline HOT void access(u64 address, const void* from) {
    if (__builtin_expect(!--patience, 0))
        return fail(from, 0, 0, "thread %u has made 2^27 accesses on end: what it waits for will not come", thread);
    u64 offset = address - (u64)base;
    if (__builtin_expect(offset >= space, 0)) {
        if (address - stack_low < STACK || address - image_low < image_high - image_low) return;
        return fail_address(address, SIZE, WRITES, from);
    }
    if (SIZE > 1 && offset % SIZE) {
        char text[200];
        return fail(from, 0, 0, "a misaligned access: thread %u %s %d bytes at %s", thread, WRITES ? "writes" : "reads",
                    SIZE, where(offset, text));
    }
    u64 word = offset / 4;
    if (SIZE < 4) {
        u32 mask = ((1u << SIZE) - 1) << offset % 4;
        if (WRITES)
            check_write(word, mask, 0, from);
        else
            check_read(word, mask, from);
        return;
    }
    for (int i = 0; i < SIZE / 4; ++i)
        if (WRITES)
            check_write(word + i, 15, 0, from);
        else
            check_read(word + i, 15, from);
}

static void access_range(u64 address, u64 size, bool writes, u64 kind, const void* from) {
    if (!size) return;
    u64 offset = address - (u64)base;
    if (offset >= space || offset + size > space) {
        if (address - stack_low < STACK || address - image_low < image_high - image_low) return;
        return fail_address(address, (int)size, writes, from);
    }
    for (u64 at = offset; at < offset + size;) {
        u64 end = (at | 3) + 1 < offset + size ? (at | 3) + 1 : offset + size;
        u32 mask = ((1u << (end - at)) - 1) << at % 4;
        if (writes)
            check_write(at / 4, mask, kind, from);
        else
            check_read(at / 4, mask, from);
        at = end;
    }
}

#define HERE __builtin_return_address(0)
#define HOOKS(size)                                                                                   \
    EXPORT HOT void __tsan_read##size(u64 address) { access<size, false>(address, HERE); }            \
    EXPORT HOT void __tsan_write##size(u64 address) { access<size, true>(address, HERE); }            \
    EXPORT void __tsan_volatile_read##size(u64 address) { access<size, false>(address, HERE); }       \
    EXPORT void __tsan_volatile_write##size(u64 address) { access<size, true>(address, HERE); }       \
    EXPORT void __tsan_unaligned_read##size(u64 address) { access_range(address, size, false, 0, HERE); } \
    EXPORT void __tsan_unaligned_write##size(u64 address) { access_range(address, size, true, 0, HERE); }
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
EXPORT void __tsan_read_range(u64 address, u64 size) { access_range(address, size, false, 0, HERE); }
EXPORT void __tsan_write_range(u64 address, u64 size) { access_range(address, size, true, 0, HERE); }
EXPORT void __tsan_func_entry(void*) {}
EXPORT void __tsan_func_exit() {}
EXPORT void __tsan_init() {}

// ---------------------------------------------------------------- fibers

#if defined(__x86_64__)
extern "C" void emulator_switch(void** save, void* load);
asm(R"(
.text
.globl emulator_switch
.hidden emulator_switch
.type emulator_switch, @function
emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emulator_switch, .-emulator_switch
)");
static void leave() { emulator_switch(&fiber->stack_pointer, scheduler); }
static void enter(Fiber* next) { emulator_switch(&scheduler, next->stack_pointer); }
#else
static void leave() { swapcontext(&fiber->context, &scheduler_context); }
static void enter(Fiber* next) { swapcontext(&scheduler_context, &next->context); }
#endif

static void run_thread() {
    entry(values);
    fiber->status = DONE;
    leave();
    abort();
}

static void prepare(Fiber& f) {
    f.status = RUNNABLE;
    f.copies.clear();
    f.group = 0;
    f.file = "";
    f.line = 0;
#if defined(__x86_64__)
    u64* top = (u64*)(f.stack_high - 16);
    *top = (u64)&run_thread;
    for (int i = 1; i <= 6; ++i) top[-i] = 0;
    f.stack_pointer = top - 6;
#else
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack_low;
    f.context.uc_stack.ss_size = f.stack_high - f.stack_low;
    f.context.uc_link = 0;
    makecontext(&f.context, run_thread, 0);
#endif
}

static bool make_stacks(u64 count) {
    if (count <= stacks_made) return true;
    if (stacks) munmap(stacks, stacks_made * STACK);
    stacks_made = 0;
    void* memory = mmap(0, count * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        stacks = 0;
        return false;
    }
    stacks = (byte*)memory;
    stacks_made = count;
    fibers.clear();
    fibers.resize(count);
    for (u64 i = 0; i < count; ++i) {
        // A page that no one may touch ends each; tops are spread, or they would all compete for the same cache lines.
        mprotect(stacks + i * STACK, 4096, PROT_NONE);
        fibers[i].stack_low = stacks + i * STACK;
        fibers[i].stack_high = stacks + (i + 1) * STACK - i * 7 % 61 * 64;
    }
    return true;
}

// Waits in a status until the scheduler or the last of the others makes this thread runnable again.
static void wait_as(Status status, const char* file, int line) {
    fiber->status = status;
    fiber->file = file;
    fiber->line = line;
    leave();
}

static void set_key() { key = block->instance << 37 | (u64)block->time << 17 | (u64)thread << 7; }

static void tick(Block& b) {
    if (++b.time >= 1u << 20) fail(0, 0, 0, "a block meets at more than a million barriers, which is more than the emulator counts");
}

// ---------------------------------------------------------------- what kernels call

EXPORT Vector3 emulator_thread_index() { return {thread, 0, 0}; }
EXPORT Vector3 emulator_block_index() { return block->index; }
EXPORT Vector3 emulator_block_dim() { return {num_threads, 1, 1}; }
EXPORT Vector3 emulator_grid_dim() { return grid; }
EXPORT char* emulator_shared() { return (char*)block->shared; }
EXPORT unsigned emulator_cluster_rank() { return block->rank; }

EXPORT void emulator_barrier(const char* file, int line) { wait_as(AT_BARRIER, file, line); }
EXPORT void emulator_cluster_barrier(const char* file, int line) { wait_as(AT_CLUSTER, file, line); }

EXPORT const void* emulator_cluster_peer(const void* shared, unsigned rank, const char* file, int line) {
    u64 offset = (u64)shared - (u64)block->shared;
    if (offset >= SLOT) fail(0, file, line, "cluster_peer is given a pointer that is not into the block's shared memory");
    if (rank >= cluster_size) fail(0, file, line, "cluster_peer is asked for block %u of a cluster of %u", rank, cluster_size);
    Block& peer = blocks[rank];
    if (&peer != block) {
        peer.was_read = true;
        peer.peer_epoch = peer.cluster_epoch;
        peer.peer_file = file;
        peer.peer_line = line;
    }
    return peer.shared + offset;
}

static u32 lanes_of(u32 warp_number) {
    u32 left = num_threads - warp_number * 32;
    return left < 32 ? left : 32;
}

static inline float truncated(double x) {
    float y = (float)x;
    if (std::isfinite(y) && std::fabs((double)y) > std::fabs(x)) y = std::nextafterf(y, 0.0f);
    return y;
}

static float tf32_of(u32 bits) {
    bits &= ~0x1fffu;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static float half_of(u32 bits) {
    u32 exponent = bits >> 10 & 31, fraction = bits & 0x3ff;
    float x = exponent == 0    ? std::ldexp((float)fraction, -24)
              : exponent == 31 ? (fraction ? NAN : INFINITY)
                               : std::ldexp((float)(fraction + 1024), (int)exponent - 25);
    return bits & 0x8000 ? -x : x;
}

static float half_at(u32 word, int i) { return half_of(word >> 16 * i & 0xffff); }
static int byte_at(u32 word, int i) { return word >> 8 * i & 0xff; }
static float whole(u32 word, int) { return tf32_of(word); }

// A (16 x 8·PER_WORD) and B (8·PER_WORD x 8) out of the lanes' fragments, a word of which holds PER_WORD numbers along K; and
// their product.
template <int PER_WORD, class Number, class At>
static void product_of_fragments(const Lane* lanes, At at, Number (&D)[16][8]) {
    constexpr int K = 8 * PER_WORD;
    static Number A[16][K], B[K][8];
    for (int lane = 0; lane < 32; ++lane) {
        int g = lane / 4, t = lane % 4;
        const Lane& l = lanes[lane];
        for (int i = 0; i < PER_WORD; ++i)
            for (int half = 0; half < 2; ++half) {
                int k = t * PER_WORD + i + half * (K / 2);
                A[g][k] = at(l.a[2 * half], i);
                A[g + 8][k] = at(l.a[2 * half + 1], i);
                B[k][g] = at(l.b[half], i);
            }
    }
    for (int i = 0; i < 16; ++i)
        for (int k = 0; k < K; ++k)
            for (int j = 0; j < 8; ++j) D[i][j] += A[i][k] * B[k][j];
}

static void compute_mma(Lane* lanes, int kind) {
    double D[16][8] = {};
    if (kind == MMA_TF32)
        product_of_fragments<1>(lanes, whole, D);
    else
        product_of_fragments<2>(lanes, half_at, D);
    for (int lane = 0; lane < 32; ++lane) {
        int g = lane / 4, t = lane % 4;
        float* d = lanes[lane].d;
        for (int i = 0; i < 4; ++i) d[i] = truncated((double)d[i] + D[g + i / 2 * 8][2 * t + i % 2]);
    }
}

static void compute_mma_of_bytes(Warp& w) {
    long long D[16][8] = {};
    product_of_fragments<4>(w.lanes, byte_at, D);
    for (int lane = 0; lane < 32; ++lane) {
        int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; ++i) {
            long long sum = w.lanes[lane].integers[i] + D[g + i / 2 * 8][2 * t + i % 2];
            if (sum != (int)sum) fail(0, w.file, w.line, "a sum of products of bytes leaves the range of 32-bit integers");
            w.lanes[lane].integers[i] = (int)sum;
        }
    }
}

static void complete(Warp& w, u32 lanes) {
    if (w.kind == WARP_BARRIER) {
        tick(*block);
        w.time = block->time;
    } else if (w.kind == SHUFFLE) {
        u64 from[32];
        for (u32 i = 0; i < lanes; ++i) from[i] = w.lanes[i].bits;
        for (u32 i = 0; i < lanes; ++i) {
            int operand = w.lanes[i].operand;
            int source = (int[]){operand & 31, (int)i ^ operand, (int)i - operand, (int)i + operand}[w.lanes[i].how];
            w.lanes[i].bits = source < 0 || source > 31 ? from[i] : from[source];
        }
    } else if (w.kind == BALLOT) {
        u64 all = 0;
        for (u32 i = 0; i < lanes; ++i) all |= w.lanes[i].bits << i;
        for (u32 i = 0; i < lanes; ++i) w.lanes[i].bits = all;
    } else if (w.kind == ROWS) {
        for (u32 i = 0; i < lanes; ++i)
            for (int j = 0; j < 4; ++j) w.lanes[i].rows[j] = (const u32*)w.lanes[8 * j + i / 4].bits;
    } else if (w.kind == MMA_BYTES) {
        compute_mma_of_bytes(w);
    } else
        compute_mma(w.lanes, w.kind);
}

// Lanes leave what they bring in their slots and meet; the last one does for all what the operation does.
static void meet(int kind, const char* file, int line) {
    if (num_threads % 32 && thread / 32 == num_warps - 1)
        fail(0, file, line, "a warp operation in a warp of %u lanes; it needs all 32", num_threads % 32);
    Warp& w = *warp;
    if (w.arrived == 0) {
        w.kind = kind;
        w.file = file;
        w.line = line;
    } else if (w.kind != kind || w.line != line || (w.file != file && strcmp(w.file, file)))
        fail(0, file, line, "lanes of a warp diverge: lane %u is here while others are at %s:%d", thread % 32, w.file, w.line);
    if (++w.arrived < 32) {
        wait_as(AT_WARP, file, line);
        return;
    }
    w.arrived = 0;
    complete(w, 32);
    Fiber* first = block->fibers + thread / 32 * 32;
    for (int i = 0; i < 32; ++i) first[i].status = RUNNABLE;
    set_key();
}

EXPORT void emulator_warp_barrier(const char* file, int line) { meet(WARP_BARRIER, file, line); }

EXPORT u64 emulator_shuffle(u64 bits, int how, int operand, const char* file, int line) {
    if (how < 0) fail(0, file, line, "a shuffle with a mask that is not the full one");
    Lane& lane = warp->lanes[thread % 32];
    lane.bits = bits;
    lane.how = how;
    lane.operand = operand;
    meet(SHUFFLE, file, line);
    return lane.bits;
}
EXPORT unsigned emulator_ballot(unsigned bit, const char* file, int line) {
    Lane& lane = warp->lanes[thread % 32];
    lane.bits = bit;
    meet(BALLOT, file, line);
    return (unsigned)lane.bits;
}

struct EmulatedRows {
    const u32* at[4];
};
// Lane by lane the rows that it has a number of, of those that the lanes point to.
EXPORT EmulatedRows emulator_rows(const void* row, const char* file, int line) {
    u64 offset = (u64)row - (u64)block->shared;
    if ((u64)row % 16)
        fail(0, file, line, "a misaligned access: thread %u points to a row of a block that is not 16-byte aligned", thread);
    if (offset >= SLOT) fail(0, file, line, "thread %u points to a row that is not in its block's shared memory", thread);
    Lane& lane = warp->lanes[thread % 32];
    lane.bits = (u64)row;
    meet(ROWS, file, line);
    EmulatedRows rows;
    memcpy(rows.at, lane.rows, sizeof rows.at);
    return rows;
}

// As emulator.h has them: passed in registers, so that a kernel's accumulators stay in registers too.
struct EmulatedD {
    float d[4];
};
struct EmulatedA {
    u32 a[4];
};
struct EmulatedB {
    u32 b[2];
};
struct EmulatedIntegers {
    int d[4];
};
template <class D>
static D mma(int kind, D d, EmulatedA a, EmulatedB b, const char* file, int line) {
    Lane& lane = warp->lanes[thread % 32];
    memcpy(lane.d, d.d, sizeof d);
    memcpy(lane.a, a.a, sizeof a);
    memcpy(lane.b, b.b, sizeof b);
    meet(kind, file, line);
    memcpy(d.d, lane.d, sizeof d);
    return d;
}
EXPORT EmulatedD emulator_mma_tf32(EmulatedD d, EmulatedA a, EmulatedB b, const char* file, int line) {
    return mma(MMA_TF32, d, a, b, file, line);
}
EXPORT EmulatedD emulator_mma_half(EmulatedD d, EmulatedA a, EmulatedB b, const char* file, int line) {
    return mma(MMA_HALF, d, a, b, file, line);
}
EXPORT EmulatedIntegers emulator_mma_bytes(EmulatedIntegers d, EmulatedA a, EmulatedB b, const char* file, int line) {
    return mma(MMA_BYTES, d, a, b, file, line);
}

EXPORT void emulator_copy(void* to, const void* from, int bytes, bool valid, const char* file, int line) {
    if ((u64)to % bytes || (u64)from % bytes)
        fail(0, file, line, "a misaligned access: thread %u copies %d bytes and a pointer is not %d-byte aligned", thread,
             bytes, bytes);
    u64 at = (u64)to - (u64)base;
    if (at >= SHARED_END) fail(0, file, line, "thread %u copies to what is not shared memory", thread);
    if (checked) {
        u64 source = (u64)from - (u64)base;
        if (source < ARENA || source >= space) fail(0, file, line, "thread %u copies from what is not global memory", thread);
        if (valid)
            access_range((u64)from, bytes, false, 0, HERE);
        else if (!(states[source / 4] & LIVE) || states[source / 4] & FREED)
            fail(0, file, line, "thread %u fills with zeros by a copy whose source is not in an array", thread);
        access_range((u64)to, bytes, true, 0, HERE);
        for (int i = 0; i < bytes / 4; ++i) states[at / 4 + i] = (states[at / 4 + i] & ~WRITTEN) | IN_FLIGHT;
    }
    memset(to, 0xff, bytes);
    fiber->copies.push_back({(byte*)to, (const byte*)from, bytes, fiber->group, valid});
}
EXPORT void emulator_copy_commit() { ++fiber->group; }
EXPORT void emulator_copy_wait(int groups) {
    std::vector<Copy>& copies = fiber->copies;
    size_t done = 0;
    for (; done < copies.size() && copies[done].group < fiber->group - groups; ++done) {
        const Copy& copy = copies[done];
        if (copy.valid)
            memcpy(copy.to, copy.from, copy.bytes);
        else
            memset(copy.to, 0, copy.bytes);
        if (!checked) continue;
        u64 word = (copy.to - base) / 4;
        for (int i = 0; i < copy.bytes / 4; ++i) {
            states[word + i] = (states[word + i] & ~IN_FLIGHT) | WRITTEN;
            shadows[word + i].write = key | 0x78;
        }
    }
    copies.erase(copies.begin(), copies.begin() + done);
}

struct Counter {
    std::vector<u32> seen;
    const char* file;
    int line;
};
static std::unordered_map<u32*, Counter> counters;

static void join_seen(std::vector<u32>& into, const std::vector<u32>& from) {
    if (into.size() < from.size()) into.resize(from.size());
    for (size_t i = 0; i < from.size(); ++i)
        if (from[i] > into[i]) into[i] = from[i];
}
static void add_self(std::vector<u32>& into, const Block& b) {
    u64 number = b.instance - launch_first;
    if (into.size() <= number) into.resize(number + 1);
    into[number] = b.time;
}

EXPORT unsigned emulator_take_ticket(u32* address, unsigned count, const char* file, int line) {
    u64 offset = (u64)address - (u64)base;
    if (checked) {
        if (offset >= space || offset < ARENA || offset % 4) fail(0, file, line, "take_ticket's counter is not a word of global memory");
        access_range((u64)address, 4, true, ATOMIC, HERE);
        if (!(states[offset / 4] & WRITTEN)) fail(0, file, line, "take_ticket's counter was never set to 0");
    }
    u32 old = *address;
    if (old >= count) fail(0, file, line, "take_ticket's counter is %u, and %u blocks are to take one", old, count);
    *address = old == count - 1 ? 0 : old + 1;
    Counter& counter = counters[address];
    counter.file = file;
    counter.line = line;
    join_seen(counter.seen, block->seen);
    add_self(counter.seen, *block);
    if (old == count - 1) {
        join_seen(block->seen, counter.seen);
        counter.seen.clear();
    }
    return old;
}

EXPORT unsigned emulator_atomic(u32* address, int how, u32 operand, const char* file, int line) {
    u64 offset = (u64)address - (u64)base;
    if (offset % 4) fail(0, file, line, "a misaligned access: thread %u makes an atomic operation", thread);
    if (checked) {
        if (offset >= space) fail_address((u64)address, 4, true, HERE);
        if ((states[offset / 4] & WRITTEN) != WRITTEN) fail_state(offset / 4, 15, false, HERE);
        access_range((u64)address, 4, true, ATOMIC, HERE);
    }
    u32 old = *address;
    switch (how) {
        case 0: *address = old + operand; break;
        case 1: *address = old >= operand ? 0 : old + 1; break;
        case 2: *address = old > operand ? old : operand; break;
        case 3: *address = old < operand ? old : operand; break;
        case 4: *address = operand; break;
        case 5: *address = old | operand; break;
        default: fail(0, file, line, "an atomic operation that the emulator does not have");
    }
    return old;
}

// ---------------------------------------------------------------- the host's side

EXPORT int emulator_start(u64 bytes) {
    if (base) return 0;
    space = ARENA + bytes;
    void* memory = mmap(0, space + 2 * GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return 1;
    byte* middle = (byte*)memory + GUARD;
    if (mprotect(middle, space, PROT_READ | PROT_WRITE)) return 1;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* shadow = mmap(0, space / 4 * sizeof(Shadow), PROT_READ | PROT_WRITE, flags, -1, 0);
    void* state = mmap(0, space / 4 * sizeof(u16), PROT_READ | PROT_WRITE, flags, -1, 0);
    if (shadow == MAP_FAILED || state == MAP_FAILED) return 1;
    shadows = (Shadow*)shadow;
    states = (u16*)state;
    base = middle;
    holes[ARENA] = bytes;
    return 0;
}

// Sets what is known of these bytes; `value` without its bits for bytes beyond the last one.
static void set_states(u64 offset, u64 bytes, u16 value) {
    std::fill(states + offset / 4, states + (offset + bytes) / 4, value);
    if (bytes % 4) states[(offset + bytes) / 4] = (value & (((1 << bytes % 4) - 1) * 0x11)) | (value & 0xff00);
}

static u64 take(u64 hole, u64 size, u64 offset, u64 bytes, u64 needed) {
    holes.erase(hole);
    if (offset > hole) holes[hole] = offset - hole;
    if (hole + size > offset + needed) holes[offset + needed] = hole + size - offset - needed;
    arrays[offset] = bytes;
    next_hole = offset + needed;
    live_bytes += needed;
    set_states(offset, needed, 0);
    set_states(offset, bytes, LIVE);
    memset(base + offset, 0xff, bytes);
    return (u64)base + offset;
}

// The next room after the last array, so that freed memory is not soon used again; from the start once twice the living
// memory lies behind.
EXPORT u64 emulator_allocate(u64 bytes) {
    u64 needed = (bytes + RED_ZONE + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (next_hole > ARENA + (64 << 20) + 2 * live_bytes) next_hole = ARENA;
    for (u64 from : {next_hole, ARENA})
        for (const auto& hole : holes) {
            u64 offset = hole.first < from ? from : hole.first;
            if (hole.first + hole.second >= offset + needed) return take(hole.first, hole.second, offset, bytes, needed);
        }
    return 0;
}

EXPORT void emulator_free(u64 address) {
    u64 offset = address - (u64)base;
    auto array = arrays.find(offset);
    if (array == arrays.end()) return;
    u64 bytes = array->second, size = (bytes + RED_ZONE + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    set_states(offset, bytes, FREED);
    u64 end = offset + size, low = (offset + 4095) / 4096 * 4096, high = end / 4096 * 4096;
    if (high > low) {
        // Whole pages go back to the system, and are zeros when they are used again.
        madvise(base + low, high - low, MADV_DONTNEED);
        madvise((byte*)shadows + low * 4, (high - low) * 4, MADV_DONTNEED);
        memset(shadows + offset / 4, 0, (low - offset) / 4 * sizeof(Shadow));
        memset(shadows + high / 4, 0, (end - high) / 4 * sizeof(Shadow));
    } else
        memset(shadows + offset / 4, 0, size / 4 * sizeof(Shadow));
    arrays.erase(array);
    live_bytes -= size;
    auto after = holes.lower_bound(offset);
    if (after != holes.end() && after->first == offset + size) {
        size += after->second;
        after = holes.erase(after);
    }
    if (after != holes.begin()) {
        auto before = std::prev(after);
        if (before->first + before->second == offset) {
            before->second += size;
            return;
        }
    }
    holes[offset] = size;
}

// The host wrote these bytes.
EXPORT void emulator_written(u64 address, u64 bytes) {
    u64 offset = address - (u64)base;
    for (u64 at = offset; at < offset + bytes; ++at) states[at / 4] |= 1 << at % 4;
}

// The first of these bytes that nobody wrote, or -1.
EXPORT long long emulator_unwritten(u64 address, u64 bytes) {
    u64 offset = address - (u64)base;
    for (u64 at = offset; at < offset + bytes; ++at) {
        if (at % 4 == 0 && at + 4 <= offset + bytes && (states[at / 4] & WRITTEN) == WRITTEN)
            at += 3;
        else if (!(states[at / 4] >> at % 4 & 1))
            return (long long)(at - offset);
    }
    return -1;
}

struct Image {
    u64 address, low, high;
};
static int find_image(dl_phdr_info* info, size_t, void* data) {
    Image* image = (Image*)data;
    u64 low = ~0ull, high = 0;
    for (int i = 0; i < info->dlpi_phnum; ++i) {
        const ElfW(Phdr)& part = info->dlpi_phdr[i];
        if (part.p_type != PT_LOAD) continue;
        u64 from = info->dlpi_addr + part.p_vaddr;
        if (from < low) low = from;
        if (from + part.p_memsz > high) high = from + part.p_memsz;
    }
    if (image->address < low || image->address >= high) return 0;
    image->low = low;
    image->high = high;
    return 1;
}

// Where the file that holds this address begins.
EXPORT u64 emulator_image(u64 address) {
    Image image = {address, 0, 0};
    dl_iterate_phdr(find_image, &image);
    image_low = image.low;
    image_high = image.high;
    return image.low;
}

static void shuffle(u32* order, u32 count, bool shuffled) {
    for (u32 i = 0; i < count; ++i) order[i] = i;
    if (shuffled)
        for (u32 i = count; i > 1; --i) {
            u32 j = next_random() % i, old = order[i - 1];
            order[i - 1] = order[j];
            order[j] = old;
        }
}

static COLD void fail_stuck() {
    char text[1200];
    int length = 0;
    const char* names[] = {"is running", "waits at the barrier", "waits at cluster_sync", "waits for its warp", "has ended"};
    const char* file = 0;
    int line = 0, kinds = 0;
    std::map<std::pair<int, std::pair<std::string, int>>, int> seen;
    for (u32 b = 0; b < cluster_size; ++b)
        for (u32 t = 0; t < num_threads; ++t) {
            Fiber& f = blocks[b].fibers[t];
            bool known = false;
            for (auto& one : seen) {
                if (one.first.first == f.status && one.first.second.second == f.line && one.first.second.first == f.file) {
                    ++one.second;
                    known = true;
                }
            }
            if (known) continue;
            seen[{f.status, {f.status == DONE ? "" : f.file, f.status == DONE ? 0 : f.line}}] = 1;
            if (f.status != DONE && !file) {
                file = f.file;
                line = f.line;
            }
            if (++kinds > 6) continue;
            length += snprintf(text + length, sizeof text - length, "%s thread %u %s", length ? "," : "", t, names[f.status]);
            if (f.status != DONE && length < 1000)
                length += snprintf(text + length, sizeof text - length, " (%s:%d)", f.file, f.line);
        }
    fail(0, file, line, "a divergent barrier:%s", text);
}

static bool same_place(const Fiber& a, const Fiber& b) { return a.line == b.line && !strcmp(a.file, b.file); }

// Lets the threads of a block that all wait at one barrier go on. False where some never come.
static bool open_barrier(Block& b, bool& opened) {
    u32 waiting = 0, done = 0;
    for (u32 t = 0; t < num_threads; ++t) {
        waiting += b.fibers[t].status == AT_BARRIER;
        done += b.fibers[t].status == DONE;
    }
    if (!waiting || waiting + done < num_threads) return true;
    if (done) return false;
    for (u32 t = 1; t < num_threads; ++t)
        if (!same_place(b.fibers[0], b.fibers[t])) return false;
    tick(b);
    b.barrier_time = b.time;
    for (u32 t = 0; t < num_threads; ++t) b.fibers[t].status = RUNNABLE;
    opened = true;
    return true;
}

static bool open_cluster_barrier(bool& opened) {
    u32 waiting = 0, all = cluster_size * num_threads;
    for (u32 b = 0; b < cluster_size; ++b)
        for (u32 t = 0; t < num_threads; ++t) waiting += blocks[b].fibers[t].status == AT_CLUSTER;
    if (!waiting) return true;
    if (waiting < all) return true;
    for (u32 b = 0; b < cluster_size; ++b)
        for (u32 t = 0; t < num_threads; ++t)
            if (!same_place(blocks[0].fibers[0], blocks[b].fibers[t])) return false;
    std::vector<u32> seen;
    for (u32 b = 0; b < cluster_size; ++b) {
        Block& one = blocks[b];
        tick(one);
        one.barrier_time = one.time;
        ++one.cluster_epoch;
        join_seen(seen, one.seen);
        add_self(seen, one);
    }
    for (u32 b = 0; b < cluster_size; ++b) {
        blocks[b].seen = seen;
        for (u32 t = 0; t < num_threads; ++t) blocks[b].fibers[t].status = RUNNABLE;
    }
    opened = true;
    return true;
}

static void run_cluster(u32 x, u32 y, u32 z, bool shuffled) {
    cluster_first = next_instance;
    for (u32 b = 0; b < cluster_size; ++b) {
        Block& one = blocks[b];
        one.instance = next_instance++;
        one.time = one.barrier_time = 1;
        one.index = {x, y, z + b};
        one.rank = b;
        one.shared = base + b * SLOT;
        one.fibers = &fibers[b * num_threads];
        one.warps.resize(num_warps);
        for (Warp& w : one.warps) w.arrived = 0, w.time = 0;
        one.seen.clear();
        one.cluster_epoch = 0;
        one.was_read = false;
        memset(one.shared, 0xff, shared_bytes);
        if (checked) set_states(b * SLOT, shared_bytes, LIVE);
        for (u32 t = 0; t < num_threads; ++t) prepare(one.fibers[t]);
    }
    u32 block_order[MAX_CLUSTER], warp_order[32], lane_order[32];
    for (;;) {
        bool ran = false;
        shuffle(block_order, cluster_size, shuffled);
        for (u32 i = 0; i < cluster_size; ++i) {
            block = &blocks[block_order[i]];
            shuffle(warp_order, num_warps, shuffled);
            for (u32 j = 0; j < num_warps; ++j) {
                u32 w = warp_order[j], lanes = lanes_of(w);
                warp = &block->warps[w];
                shuffle(lane_order, lanes, shuffled);
                for (bool again = true; again;) {
                    again = false;
                    for (u32 k = 0; k < lanes; ++k) {
                        thread = w * 32 + lane_order[k];
                        fiber = &block->fibers[thread];
                        if (fiber->status != RUNNABLE) continue;
                        set_key();
                        stack_low = (u64)fiber->stack_low;
                        patience = PATIENCE;
                        enter(fiber);
                        if (failed) {
                            fiber = 0;
                            return;
                        }
                        again = ran = true;
                    }
                }
            }
        }
        fiber = 0;
        bool opened = false, all_done = true;
        for (u32 b = 0; b < cluster_size; ++b)
            if (!open_barrier(blocks[b], opened)) return fail_stuck();
        if (!open_cluster_barrier(opened)) return fail_stuck();
        for (u32 b = 0; b < cluster_size && all_done; ++b)
            for (u32 t = 0; t < num_threads && all_done; ++t) all_done = blocks[b].fibers[t].status == DONE;
        if (failed) return;
        if (all_done) break;
        if (!opened) return fail_stuck();
    }
    for (u32 b = 0; b < cluster_size; ++b) {
        Block& one = blocks[b];
        if (one.was_read && one.peer_epoch == one.cluster_epoch) {
            fail(0, one.peer_file, one.peer_line,
                 "another block reads the shared memory of block %u of its cluster, which may have ended: cluster_sync is "
                 "missing after the last use",
                 b);
            return;
        }
        if (checked) set_states(b * SLOT, shared_bytes, 0);
    }
}

EXPORT int emulator_launch(void (*kernel)(void**), void** arguments, const u32* blocks_of_grid, u32 threads, u32 bytes,
                           u32 cluster, u32 seed, int is_checked) {
    entry = kernel;
    values = arguments;
    grid = {blocks_of_grid[0], blocks_of_grid[1], blocks_of_grid[2]};
    num_threads = threads;
    num_warps = (threads + 31) / 32;
    shared_bytes = bytes;
    cluster_size = cluster;
    checked = is_checked;
    failed = false;
    fiber = 0;
    report_address = 0;
    random_state = seed * 2654435761u + 12345;
    u64 count = (u64)grid.x * grid.y * grid.z;
    if (count >= 1ull << 22) {
        fail(0, 0, 0, "%llu blocks are more than the emulator counts in a launch", (unsigned long long)count);
        return 1;
    }
    if (!make_stacks((u64)cluster * threads)) {
        fail(0, 0, 0, "no memory for the stacks of %u threads", cluster * threads);
        return 1;
    }
    if (next_instance > MAX_INSTANCE && !open_branches) {
        madvise(shadows, space / 4 * sizeof(Shadow), MADV_DONTNEED);
        next_instance = 1;
    }
    emulator_image((u64)kernel);
    launch_first = next_instance;
    if (open_branches)
        launches.push_back({launch_first, stream});
    else {
        window = launch_first;
        forget_sets();
    }
    counters.clear();
#if defined(__x86_64__)
    // As the device's code is compiled: subnormal floats are zeros.
    unsigned control = _mm_getcsr();
    _mm_setcsr(control | 0x8040);
#elif defined(__aarch64__)
    u64 control;
    asm volatile("mrs %0, fpcr" : "=r"(control));
    asm volatile("msr fpcr, %0" ::"r"(control | 1 << 24));
#endif
    u32 num_clusters = (u32)(count / cluster);
    std::vector<u32> order(num_clusters);
    shuffle(order.data(), num_clusters, seed != 0);
    for (u32 i = 0; i < num_clusters && !failed; ++i) {
        u32 n = order[i];
        run_cluster(n % grid.x, n / grid.x % grid.y, n / grid.x / grid.y * cluster, seed != 0);
    }
    if (!failed)
        for (auto& one : counters)
            if (*one.first) {
                fail(0, one.second.file, one.second.line,
                     "the launch ends with take_ticket's counter at %u: fewer blocks took a ticket than it was told", *one.first);
                break;
            }
    // Whatever a kernel that failed has left there is no block's.
    if (failed && checked)
        for (u32 b = 0; b < cluster_size; ++b) set_states(b * SLOT, shared_bytes, 0);
#if defined(__x86_64__)
    _mm_setcsr(control);
#elif defined(__aarch64__)
    asm volatile("msr fpcr, %0" ::"r"(control));
#endif
    return failed;
}
