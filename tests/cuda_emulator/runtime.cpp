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
//
// Mbarriers order some threads and not others. From a block's first mbarrier_init on each of its threads has a vector clock: by agent
// (a thread; a warpgroup, whose multiplications read; an mbarrier, whose copies write) until when what the agent did is
// ordered before the thread's now. An arrival moves the block's clock on and leaves the thread's clock with the mbarrier;
// who waits for the phase takes it from there. Who read a word since its last write is then a list (`readers`), and of
// the multiplications, which read what copy_bulk wrote, the last time is kept by word and warpgroup (`multiplied`).
//
// What is under way ends at the last moment: copies of copy_bulk where no thread can go on without them, multiplications in
// warpgroup_wait.

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
// BULK: by copy_bulk, which like the tensor cores does not go the way of ordinary loads and stores.
enum : u16 { WRITTEN = 0x0f, LIVE = 0xf0, FREED = 0x100, IN_FLIGHT = 0x200, BULK = 0x400, MBARRIER = 0x800 };
enum : u16 { OUT_OF_REACH = FREED | IN_FLIGHT | MBARRIER };

static byte* base;      // slots of shared memory, then the arena
static u64 space;       // bytes from base on
static Shadow* shadows; // one a word
static u16* states;     // one a word

static std::map<u64, u64> holes;             // free regions of the arena: offset, size
static std::map<u64, u64> arrays;            // offset, bytes
static u64 next_hole = ARENA, live_bytes;

// ---------------------------------------------------------------- blocks and threads

enum Status { RUNNABLE, AT_BARRIER, AT_CLUSTER, AT_WARP, AT_WARPGROUP, AT_MBARRIER, DONE };
enum WarpKind { WARP_BARRIER, SHUFFLE, BALLOT, ROWS, MMA_TF32, MMA_HALF, MMA_BYTES };
enum WarpgroupKind { MULTIPLIED, REGISTERS };

struct Vector3 {
    u32 x, y, z;
};
struct Copy {
    byte* to;
    const byte* from;
    int bytes, group;
    bool valid;
};
// An array of registers that multiplications write, and what it will hold; until then it holds POISON, a NaN.
static const u32 POISON = 0x7fffdead;
struct Registers {
    u32* at;
    u32 values[64];
};
struct Mbarrier;
struct Fiber {
    void* stack_pointer;
    byte *stack_low, *stack_high;
    Status status;
    const char* file;
    int line;
    std::vector<Copy> copies;
    int group;
    Mbarrier* awaited;
    std::vector<Registers> registers;
    size_t multiplications, committed;    // of those of its warpgroup that are under way, those that it has begun
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
struct Multiplication {
    bool of_bytes, adds;
    u64 a, b;
    size_t registers;
    const char* file;
    int line;
    std::vector<u32> known;    // the least of the clocks of the threads, as they began it
    u32 barrier_time;
};
struct Warpgroup {
    int arrived, kind;
    const char* file;
    int line;
    size_t named;
    std::vector<Multiplication> under_way;
};
struct BulkCopy {
    byte* to;
    const byte* from;
    u32 bytes;
    const char* file;
    int line;
};
struct Mbarrier {
    u32 place, agent, count;
    u32 missing, phase;          // arrivals that this phase lacks, phases before it
    u64 expected, issued;        // bytes, in this phase
    bool awaited;                // somebody has waited for the phase before
    u32 init_time, init_by, last_use;
    std::vector<BulkCopy> copies;
    std::vector<u32> clock;      // of all who arrived
    std::vector<u32> ended;      // the same when the last phase ended
};
struct Reader {
    u32 by, time;
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
    std::vector<Warpgroup> warpgroups;
    std::map<u32, Mbarrier> mbarriers;              // by their place in shared memory
    u32* clocks;                                    // by thread and agent; 0 before the first mbarrier
    std::vector<u32> clock_memory, multiplied;
    std::unordered_map<u64, std::vector<Reader>> readers;    // by word
};

static Block blocks[MAX_CLUSTER];
static std::vector<Fiber> fibers;
static byte* stacks;
static u64 stacks_made;
static const u64 STACK = 256 * 1024;

static void (*entry)(void**);
static void** values;
static Vector3 grid;
static u32 num_threads, num_warps, num_warpgroups, cluster_size, shared_bytes;
// Agents beyond the threads, which no warp has: warpgroups, then mbarriers.
static u32 first_agent, num_agents;
static const u32 MAX_MBARRIERS = 64, MAX_AGENTS = 1024;
static bool checked;
static u64 image_low, image_high;            // the kernel's own constants lie here

static Block* block;
static Fiber* fiber;
static Warp* warp;
static u32 thread;
static u64 key;                              // of an access now, without its bytes and kind
static u64 plain_instance;                   // of the block, or 0 where it has mbarriers
static u64 stack_low;
static u64 poison_low, poison_size;          // the thread's registers that are under way lie here, perhaps among others
static bool woken;                           // by one thread another may run again
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

// The same by the block's mbarriers, of an access of one agent.
static COLD bool is_known(u32 time, u32 by) { return block->clocks && time < block->clocks[thread * num_agents + by]; }

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

// The agent in words.
static const char* who_is(u32 agent, char* text) {
    if (agent < first_agent)
        sprintf(text, "thread %u", agent);
    else if (agent < first_agent + num_warpgroups)
        sprintf(text, "a multiplication of warpgroup %u", agent - first_agent);
    else {
        strcpy(text, "copy_bulk");
        for (auto& one : block->mbarriers)
            if (one.second.agent == agent) sprintf(text, "copy_bulk for the mbarrier at byte %u", one.first);
    }
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
    } else if (state & MBARRIER)
        fail(address, 0, 0, "thread %u %s %s, which is an mbarrier's", thread, verb, where(offset, text));
    else if (state & IN_FLIGHT && state & BULK)
        fail(address, 0, 0,
             "thread %u %s %s, where a copy of copy_bulk is under way: the wait for its mbarrier is missing, or before it one "
             "for those who use the slot",
             thread, verb, where(offset, text));
    else if (state & IN_FLIGHT)
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
            who_is(thread_in(record), who);
        fail(address, 0, 0, "a race: thread %u of block (%u, %u, %u) %s %s that %s %s, with no barrier between%s", thread,
             block->index.x, block->index.y, block->index.z, verb, text, who, other_verb,
             block->clocks ? ", nor an mbarrier that the one arrives at after it and the other waits for before" : "");
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

// A read of a word that this block read before, where threads are ordered by mbarriers.
static __attribute__((noinline)) void read_beside_mbarriers(u64 word, Shadow& shadow, u64 mine) {
    u64 read = shadow.read;
    u32 by = thread_in(read), time = time_in(read);
    if (time < block->barrier_time)
        shadow.read = mine;
    else if ((read & 7) == ONE) {
        if (by == thread)
            shadow.read = mine | bytes_in(read);
        else if (is_past(time, by, true) || is_known(time, by) || !(read & bytes_in(mine)))
            shadow.read = mine;
        else {
            block->readers[word] = {{by, time}, {thread, block->time}};
            shadow.read = mine | bytes_in(read) | WARPS;
        }
    } else {
        // Where several read it before the first mbarrier was made there is no list: a barrier must come.
        auto list = block->readers.find(word);
        if (list != block->readers.end()) {
            auto one = list->second.begin();
            while (one != list->second.end() && one->by != thread) ++one;
            if (one != list->second.end())
                one->time = block->time;
            else
                list->second.push_back({thread, block->time});
        }
        shadow.read = mine | bytes_in(read) | WARPS;
    }
}

// Whether some read of those that the record stands for, by several threads, is not ordered before now: the record is then of
// that one, if it is known.
static COLD bool is_any_beside(u64 word, u64& record) {
    if (!block->clocks || (record & 7) == ONE || (record & 7) == SET) return true;
    auto list = block->readers.find(word);
    if (list == block->readers.end()) return true;
    for (const Reader& one : list->second)
        if (one.by != thread && !is_past(one.time, one.by, true) && !is_known(one.time, one.by)) {
            record = block->instance << 37 | (u64)one.time << 17 | (u64)one.by << 7 | bytes_in(record) | ONE;
            return true;
        }
    return false;
}

// Whether the multiplications that read what copy_bulk wrote there come before this thread's now.
static COLD bool are_multiplications_past(u64 word, const void* address) {
    u64 place = word - block->rank * (SLOT / 4);
    if (!block->clocks || place >= shared_bytes / 4) return true;
    for (u32 g = 0; g < num_warpgroups; ++g) {
        u32 time = block->multiplied[place * num_warpgroups + g];
        if (!time || time < block->barrier_time || is_known(time, first_agent + g)) continue;
        fail_race(word, true, false, block->instance << 37 | (u64)time << 17 | (u64)(first_agent + g) << 7 | ONE, address);
        return false;
    }
    return true;
}

static inline HOT void check_read(u64 word, u32 mask, const void* address) {
    u16 state = states[word], needed = mask | mask << 4;
    if (__builtin_expect((state & (needed | OUT_OF_REACH)) != needed, 0)) return fail_state(word, mask, false, address);
    Shadow& shadow = shadows[word];
    u64 first = word < SHARED_END / 4 ? cluster_first : window;
    u64 bits = (u64)mask << 3;
    u64 write = shadow.write;
    if (instance_in(write) >= first && write & bits) {
        if (instance_in(write) == block->instance) {
            if (thread_in(write) != thread && !is_past(time_in(write), thread_in(write), true) &&
                !is_known(time_in(write), thread_in(write)))
                return fail_race(word, false, true, write, address);
        } else if (!is_ordered(instance_in(write), time_in(write)))
            return fail_race(word, false, true, write, address);
    }
    u64 read = shadow.read, mine = key | bits;
    if (read == mine) return;
    if (instance_in(read) < first)
        shadow.read = mine;
    else if (instance_in(read) != plain_instance || (read & 7) == SET) {
        if (instance_in(read) == block->instance && (read & 7) != SET)
            read_beside_mbarriers(word, shadow, mine);
        else
            read_by_blocks(shadow, read, mask);
    } else {
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
    if (__builtin_expect((state & (needed | OUT_OF_REACH | BULK)) != needed, 0)) {
        if ((state & (needed | OUT_OF_REACH)) != needed) return fail_state(word, mask, true, address);
        if (!are_multiplications_past(word, address)) return;
        state &= ~BULK;
    }
    Shadow& shadow = shadows[word];
    u64 first = word < SHARED_END / 4 ? cluster_first : window;
    u64 bits = (u64)mask << 3;
    u64 write = shadow.write;
    if (instance_in(write) >= first && write & bits && !(write & kind & ATOMIC)) {
        if (instance_in(write) == block->instance) {
            if (thread_in(write) != thread && !is_past(time_in(write), thread_in(write), true) &&
                !is_known(time_in(write), thread_in(write)))
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
                !is_past(time_in(read), thread_in(read), (read & 7) != WARPS) &&
                !((read & 7) == ONE && is_known(time_in(read), thread_in(read))) && is_any_beside(word, read))
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

static COLD void check_registers(u64 address, u64 size, bool writes, const void* from) {
    for (const Registers& one : fiber->registers)
        if (address + size > (u64)one.at && address < (u64)(one.at + 64))
            fail(from, 0, 0,
                 "thread %u %s registers that a multiplication of its warpgroup has under way: a warpgroup_wait that names "
                 "them is missing",
                 thread, writes ? "writes" : "reads");
}
// An access to the thread's own memory: no multiplication may have it under way.
static inline HOT void access_own(u64 address, u64 size, bool writes, const void* from) {
    if (__builtin_expect(address + size - poison_low < poison_size + size, 0)) check_registers(address, size, writes, from);
}

template <int SIZE, bool WRITES>
static inline HOT void access(u64 address, const void* from) {
    if (__builtin_expect(!--patience, 0))
        return fail(from, 0, 0, "thread %u has made 2^27 accesses on end: what it waits for will not come", thread);
    u64 offset = address - (u64)base;
    if (__builtin_expect(offset >= space, 0)) {
        if (address - stack_low < STACK) return access_own(address, SIZE, WRITES, from);
        if (address - image_low < image_high - image_low) return;
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
        if (address - stack_low < STACK) return access_own(address, size, writes, from);
        if (address - image_low < image_high - image_low) return;
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
    f.awaited = 0;
    f.registers.clear();
    f.multiplications = f.committed = 0;
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

static void set_key() {
    plain_instance = block->clocks ? 0 : block->instance;
    key = block->instance << 37 | (u64)block->time << 17 | (u64)thread << 7;
}

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
    u32 bits;
    memcpy(&bits, &y, 4);
    bits -= (bits & 0x7f800000) != 0x7f800000 && std::fabs((double)y) > std::fabs(x);
    memcpy(&y, &bits, 4);
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

// Vector clocks: into[i] = max(into[i], from[i]).
static void join(u32* into, const u32* from) {
    for (u32 i = 0; i < num_agents; ++i) into[i] = into[i] < from[i] ? from[i] : into[i];
}

// After a __syncwarp each lane of a warp knows what any of them knew.
static void join_lanes(u32 first) {
    u32* clock = block->clocks + first * num_agents;
    for (u32 i = 1; i < 32; ++i) join(clock, clock + i * num_agents);
    for (u32 i = 0; i < 32; ++i) clock[first + i] = block->time;
    for (u32 i = 1; i < 32; ++i) memcpy(clock + i * num_agents, clock, num_agents * sizeof(u32));
}

static void complete(Warp& w, u32 lanes) {
    if (w.kind == WARP_BARRIER) {
        tick(*block);
        w.time = block->time;
        if (block->clocks) join_lanes(thread / 32 * 32);
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

// ---------------------------------------------------------------- mbarriers and the copies that they wait for

static u32 place_in_shared(const void* at) {
    u64 offset = (u64)at - (u64)block->shared;
    return offset < SLOT ? (u32)offset : ~0u;
}

static void begin_clocks(const char* file, int line) {
    if (num_agents > MAX_AGENTS)
        fail(0, file, line, "a block of %u threads is too large for the emulator to have mbarriers", num_threads);
    block->clock_memory.assign((u64)num_threads * num_agents, 0);
    block->multiplied.assign((u64)shared_bytes / 4 * num_warpgroups, 0);
    block->clocks = block->clock_memory.data();
    set_key();
}

EXPORT void emulator_mbarrier_init(void* at, int count, const char* file, int line) {
    u32 place = place_in_shared(at);
    if (place % 8 || place + 8 > shared_bytes)
        fail(0, file, line, "thread %u initialises an mbarrier that is not a word of 64 bits in its block's shared memory",
             thread);
    if (count < 1 || count >= 1 << 20) fail(0, file, line, "thread %u initialises an mbarrier for %d arrivals", thread, count);
    auto found = block->mbarriers.find(place);
    bool again = found != block->mbarriers.end();
    if (again && (found->second.last_use >= block->barrier_time || !found->second.copies.empty()))
        fail(0, file, line, "thread %u initialises the mbarrier at byte %u again, which was used since the last barrier",
             thread, place);
    if (!again && block->mbarriers.size() == MAX_MBARRIERS)
        fail(0, file, line, "more than %u mbarriers, which is more than the emulator counts", MAX_MBARRIERS);
    if (checked) {
        if (!block->clocks) begin_clocks(file, line);
        u64 word = ((byte*)at - base) / 4;
        for (int i = 0; i < 2; ++i) states[word + i] &= ~MBARRIER;
        access_range((u64)at, 8, true, 0, HERE);
        for (int i = 0; i < 2; ++i) states[word + i] |= MBARRIER;
    }
    u32 agent = again ? found->second.agent : first_agent + num_warpgroups + (u32)block->mbarriers.size();
    Mbarrier& m = block->mbarriers[place];
    m = Mbarrier();
    m.place = place;
    m.agent = agent;
    m.count = m.missing = count;
    m.init_time = m.last_use = block->time;
    m.init_by = thread;
    if (block->clocks) {
        m.clock.assign(num_agents, 0);
        m.ended.assign(num_agents, 0);
    }
}

static Mbarrier& mbarrier_at(const void* at, const char* file, int line) {
    u32 place = place_in_shared(at);
    auto found = block->mbarriers.find(place);
    if (found == block->mbarriers.end()) {
        char text[60] = "what is not in its block's shared memory";
        if (place != ~0u) sprintf(text, "byte %u of shared memory", place);
        fail(0, file, line, "thread %u uses %s as an mbarrier, which nobody has initialised", thread, text);
    }
    Mbarrier& m = found->second;
    if (checked && m.init_by != thread && !is_past(m.init_time, m.init_by, true) && !is_known(m.init_time, m.init_by))
        fail(0, file, line, "thread %u uses the mbarrier at byte %u that thread %u initialises, with no barrier between",
             thread, place, m.init_by);
    m.last_use = block->time;
    return m;
}

// What comes before the phase's arrivals is past for this thread of the block.
static void take_clock(Block& b, u32 t, const Mbarrier& m) {
    if (b.clocks) join(b.clocks + t * num_agents, m.ended.data());
}

static void end_phase(Block& b, Mbarrier& m, const char* file, int line) {
    if (m.phase && !m.awaited)
        return fail(0, file, line,
                    "a phase of the mbarrier at byte %u ends before anybody has waited for the one before: there are more "
                    "arrivals than the %u of a phase, or a wait is missing",
                    m.place, m.count);
    ++m.phase;
    m.missing = m.count;
    m.expected = m.issued = 0;
    m.awaited = false;
    m.ended = m.clock;
    for (u32 t = 0; t < num_threads; ++t) {
        Fiber& f = b.fibers[t];
        if (f.status != AT_MBARRIER || f.awaited != &m) continue;
        f.status = RUNNABLE;
        take_clock(b, t, m);
        m.awaited = woken = true;
    }
}

static void check_bytes(const Mbarrier& m, const char* file, int line) {
    if (!m.missing && m.issued > m.expected)
        fail(0, file, line, "the mbarrier at byte %u expects %llu bytes in this phase, and copies of %llu are under way", m.place,
             (unsigned long long)m.expected, (unsigned long long)m.issued);
}

EXPORT void emulator_mbarrier_arrive(void* at, int bytes, const char* file, int line) {
    Mbarrier& m = mbarrier_at(at, file, line);
    if (bytes < 0 || bytes >= 1 << 20) fail(0, file, line, "thread %u has an mbarrier expect %d bytes", thread, bytes);
    if (!m.missing)
        fail(0, file, line, "thread %u arrives at the mbarrier at byte %u, at which all %u of this phase are", thread, m.place,
             m.count);
    if (block->clocks) {
        tick(*block);
        u32* clock = block->clocks + thread * num_agents;
        clock[thread] = block->time;
        join(m.clock.data(), clock);
        set_key();
    }
    --m.missing;
    m.expected += bytes;
    check_bytes(m, file, line);
    if (!m.missing && m.expected == m.issued && m.copies.empty()) end_phase(*block, m, file, line);
}

EXPORT void emulator_mbarrier_wait(void* at, unsigned parity, const char* file, int line) {
    Mbarrier& m = mbarrier_at(at, file, line);
    if (parity > 1) fail(0, file, line, "thread %u waits at an mbarrier for a phase of parity %u", thread, parity);
    if (m.phase % 2 == parity) {
        fiber->awaited = &m;
        wait_as(AT_MBARRIER, file, line);
    } else if (m.phase) {
        take_clock(*block, thread, m);
        m.awaited = true;
    }
}

EXPORT void emulator_copy_bulk(void* to, const void* from, int bytes, void* at, const char* file, int line) {
    Mbarrier& m = mbarrier_at(at, file, line);
    if (bytes <= 0 || bytes % 16) fail(0, file, line, "copy_bulk of %d bytes, which are no multiple of 16", bytes);
    if ((u64)to % 16 || (u64)from % 16)
        fail(0, file, line, "a misaligned access: thread %u calls copy_bulk, and a pointer is not 16-byte aligned", thread);
    if (place_in_shared(to) == ~0u)
        fail(0, file, line, "thread %u calls copy_bulk to what is not its block's shared memory", thread);
    if (checked) {
        u64 source = (u64)from - (u64)base, word = ((byte*)to - base) / 4;
        if (source < ARENA || source >= space)
            fail(0, file, line, "thread %u calls copy_bulk from what is not global memory", thread);
        access_range((u64)from, bytes, false, 0, HERE);
        u64 stored = ~0ull;
        for (int i = 0; i < bytes / 4; ++i)
            if (states[word + i] & WRITTEN && !(states[word + i] & BULK)) stored = word + i;
        access_range((u64)to, bytes, true, 0, HERE);
        if (stored != ~0ull) {
            char text[200];
            fail(0, file, line, "thread %u calls copy_bulk to %s, where an ordinary store was before: no fence orders the two",
                 thread, where(stored * 4, text));
        }
        for (int i = 0; i < bytes / 4; ++i) states[word + i] = (states[word + i] & ~WRITTEN) | IN_FLIGHT | BULK;
    }
    memset(to, 0xff, bytes);
    m.copies.push_back({(byte*)to, (const byte*)from, (u32)bytes, file, line});
    m.issued += bytes;
    // Whoever waits for the copy comes after what made room for it.
    if (block->clocks) join(m.clock.data(), block->clocks + thread * num_agents);
    check_bytes(m, file, line);
}

// Ends phases that wait for their copies only: all, or some of them.
static void land(Block& b, bool all) {
    for (auto& one : b.mbarriers) {
        Mbarrier& m = one.second;
        if (m.missing || m.expected != m.issued || m.copies.empty()) continue;
        if (!all && next_random() % 2) continue;
        for (const BulkCopy& copy : m.copies) {
            memcpy(copy.to, copy.from, copy.bytes);
            if (!checked) continue;
            u64 word = (copy.to - base) / 4;
            for (u32 i = 0; i < copy.bytes / 4; ++i) {
                states[word + i] = (states[word + i] & ~IN_FLIGHT) | WRITTEN;
                shadows[word + i].write = b.instance << 37 | (u64)b.time << 17 | (u64)m.agent << 7 | 0x78;
            }
        }
        if (b.clocks) {
            tick(b);
            m.clock[m.agent] = b.time;
        }
        BulkCopy last = m.copies.back();
        m.copies.clear();
        end_phase(b, m, last.file, last.line);
    }
}

// ---------------------------------------------------------------- warpgroups

// Where the fields of a matrix's description are, as in device.cuh.
static const u64 ROWS_OF_64_BYTES = 1ull << 16 | (u64)(512 / 16) << 32 | 2ull << 62;

EXPORT u64 emulator_matrix(const void* shared, const char* file, int line) {
    u32 place = place_in_shared(shared);
    if (place == ~0u) fail(0, file, line, "thread %u describes a matrix that is not in its block's shared memory", thread);
    if (place % 512)
        fail(0, file, line, "thread %u describes a matrix at byte %u of shared memory, which is not 512-byte aligned", thread,
             place);
    return place >> 4 | ROWS_OF_64_BYTES;
}

static Warpgroup& own_warpgroup(const char* file, int line) {
    u32 number = thread / 128;
    if (number >= num_warpgroups)
        fail(0, file, line, "a warpgroup operation in a warpgroup of %u threads; it needs all 128", num_threads % 128);
    return block->warpgroups[number];
}

static COLD void fail_warpgroup(const char* file, int line, const char* other_file, int other_line) {
    fail(0, file, line, "threads of a warpgroup diverge: thread %u is here while others are at %s:%d", thread, other_file,
         other_line);
}

static void set_poison() {
    poison_low = poison_size = 0;
    if (fiber->registers.empty()) return;
    u64 low = ~0ull, high = 0;
    for (const Registers& one : fiber->registers) {
        low = std::min(low, (u64)one.at);
        high = std::max(high, (u64)(one.at + 64));
    }
    poison_low = low;
    poison_size = high - low;
}

static size_t find_registers(const Fiber& f, const void* d) {
    size_t i = 0;
    while (i < f.registers.size() && f.registers[i].at != d) ++i;
    return i;
}

static void check_matrix(u64 matrix, const char* file, int line) {
    u32 place = (u32)(matrix & 0x3fff) << 4;
    if ((matrix & ~0x3fffull) != ROWS_OF_64_BYTES || (place % 512 != 0 && place % 512 != 32))
        fail(0, file, line, "thread %u multiplies by what shared_matrix did not describe: 0x%llx", thread,
             (unsigned long long)matrix);
}

EXPORT void emulator_warpgroup_multiply(void* d, int of_bytes, u64 a, u64 b, bool adds, const char* file, int line) {
    Warpgroup& g = own_warpgroup(file, line);
    check_matrix(a, file, line);
    check_matrix(b, file, line);
    size_t i = find_registers(*fiber, d);
    if (i == fiber->registers.size()) {
        Registers one;
        one.at = (u32*)d;
        memcpy(one.values, d, sizeof one.values);
        fiber->registers.push_back(one);
        std::fill(one.at, one.at + 64, POISON);
        set_poison();
    }
    const u32* clock = block->clocks ? block->clocks + thread * num_agents : 0;
    size_t number = fiber->multiplications++;
    if (number == g.under_way.size()) {
        g.under_way.push_back({(bool)of_bytes, adds, a, b, i, file, line, {}, block->barrier_time});
        if (clock) g.under_way.back().known.assign(clock, clock + num_agents);
        return;
    }
    Multiplication& m = g.under_way[number];
    if (m.line != line || strcmp(m.file, file)) fail_warpgroup(file, line, m.file, m.line);
    if (m.a != a || m.b != b || m.adds != adds || m.registers != i)
        fail(0, file, line, "threads of a warpgroup diverge: thread %u multiplies other matrices, or into other registers",
             thread);
    if (clock)
        for (u32 k = 0; k < num_agents; ++k) m.known[k] = std::min(m.known[k], clock[k]);
}

EXPORT void emulator_warpgroup_commit(const char* file, int line) {
    own_warpgroup(file, line);
    fiber->committed = fiber->multiplications;
}

// One word of what a multiplication reads.
static bool check_operand(const Multiplication& m, u32 place, u32 number) {
    char text[200], who[60];
    u64 word = ((u64)(block->shared - base) + place) / 4;
    u16 state = place + 4 <= shared_bytes ? states[word] : 0;
    const char* what = 0;
    if (place + 4 > shared_bytes || (state & LIVE) != LIVE)
        what = "which is out of bounds";
    else if (state & MBARRIER)
        what = "which is an mbarrier's";
    else if (state & IN_FLIGHT)
        what = "where a copy is under way: the wait for it is missing, or the copy came before the end of the multiplication";
    else if ((state & WRITTEN) != WRITTEN)
        what = "which nobody wrote";
    else if (!(state & BULK))
        what = "which an ordinary store wrote: no fence orders it before the tensor cores";
    where(word * 4, text);
    if (what) {
        fail(0, m.file, m.line, "warpgroup %u multiplies by %s, %s", number, text, what);
        return false;
    }
    u64 write = shadows[word].write;
    u32 by = thread_in(write), time = time_in(write);
    if (instance_in(write) == block->instance && time >= m.barrier_time && !(m.known.size() && time < m.known[by])) {
        fail(0, m.file, m.line, "a race: warpgroup %u multiplies by %s that %s wrote, which its threads have not waited for",
             number, text, who_is(by, who));
        return false;
    }
    block->multiplied[word % (SLOT / 4) * num_warpgroups + number] = block->time;
    return true;
}

// Finds the 32 bytes along K of each row, as two sixteens.
static bool find_operand(const Multiplication& m, u64 matrix, int rows, u32 number, const byte* (*sixteens)[2]) {
    u32 start = (u32)(matrix & 0x3fff) << 4;
    for (int r = 0; r < rows; ++r)
        for (int s = 0; s < 2; ++s) {
            u32 place = start + r / 8 * 512 + r % 8 * 64 + s * 16;
            place ^= (place >> 7 & 3) << 4;
            if (place + 16 > SLOT) return false;
            sixteens[r][s] = block->shared + place;
            for (int i = 0; checked && i < 16; i += 4)
                if (!check_operand(m, place + i, number)) return false;
        }
    return true;
}

static const float* halves() {
    static float all[65536];
    static bool made = false;
    if (!made)
        for (u32 i = 0; i < 65536; ++i) all[i] = half_of(i);
    made = true;
    return all;
}

// d (64 x 128) = a (64 x K) · b (K x 128).
template <int K, class Number>
__attribute__((optimize("O3"))) static void multiply_matrices(const Number (&a)[64][K], const Number (&b)[K][128],
                                                              Number (&d)[64][128]) {
    for (int i = 0; i < 64; ++i) {
        Number row[128] = {};
        for (int k = 0; k < K; ++k)
            for (int j = 0; j < 128; ++j) row[j] += a[i][k] * b[k][j];
        memcpy(d[i], row, sizeof row);
    }
}

static bool perform(const Multiplication& m, u32 number, u32 (&sums)[64][128]) {
    static const byte *a_at[64][2], *b_at[128][2];
    if (!find_operand(m, m.a, 64, number, a_at) || !find_operand(m, m.b, 128, number, b_at)) return false;
    if (m.of_bytes) {
        static int a[64][32], b[32][128], d[64][128];
        for (int k = 0; k < 32; ++k) {
            for (int r = 0; r < 64; ++r) a[r][k] = a_at[r][k / 16][k % 16];
            for (int r = 0; r < 128; ++r) b[k][r] = b_at[r][k / 16][k % 16];
        }
        multiply_matrices(a, b, d);
        for (int i = 0; i < 64; ++i)
            for (int j = 0; j < 128; ++j) {
                long long sum = d[i][j] + (long long)(m.adds ? (int)sums[i][j] : 0);
                if (sum != (int)sum) {
                    fail(0, m.file, m.line, "a sum of products of bytes leaves the range of 32-bit integers");
                    return false;
                }
                sums[i][j] = (u32)sum;
            }
        return true;
    }
    static double a[64][16], b[16][128], d[64][128];
    const float* numbers = halves();
    for (int k = 0; k < 16; ++k) {
        for (int r = 0; r < 64; ++r) a[r][k] = numbers[((const u16*)a_at[r][k / 8])[k % 8]];
        for (int r = 0; r < 128; ++r) b[k][r] = numbers[((const u16*)b_at[r][k / 8])[k % 8]];
    }
    multiply_matrices(a, b, d);
    for (int i = 0; i < 64; ++i)
        for (int j = 0; j < 128; ++j) {
            float before = 0.0f;
            if (m.adds) memcpy(&before, &sums[i][j], 4);
            before = truncated((double)before + d[i][j]);
            memcpy(&sums[i][j], &before, 4);
        }
    return true;
}

// Performs what a warpgroup has under way, and leaves the sums with the registers, which do not show them yet.
static void perform_all(Warpgroup& g, u32 number) {
    if (g.under_way.empty()) return;
    Fiber* of_group = block->fibers + number * 128;
    for (u32 t = 0; t < 128; ++t)
        if (of_group[t].multiplications != g.under_way.size())
            fail(0, g.file, g.line, "threads of a warpgroup diverge: of its %zu multiplications thread %u has begun %zu",
                 g.under_way.size(), number * 128 + t, of_group[t].multiplications);
    for (size_t i = 0; i < of_group->registers.size(); ++i) {
        static u32 sums[64][128];
        auto each = [&](auto f) {
            for (int t = 0; t < 128; ++t)
                for (int e = 0; e < 64; ++e)
                    f(of_group[t].registers[i].values[e],
                      sums[t / 32 * 16 + t % 32 / 4 + e / 2 % 2 * 8][e / 4 * 8 + t % 4 * 2 + e % 2]);
        };
        each([](u32& one, u32& sum) { sum = one; });
        for (const Multiplication& m : g.under_way)
            if (m.registers == i && !perform(m, number, sums)) return;
        each([](u32& one, u32& sum) { one = sum; });
    }
    g.under_way.clear();
    if (block->clocks) tick(*block);
    for (int t = 0; t < 128; ++t) {
        of_group[t].multiplications = of_group[t].committed = 0;
        if (block->clocks) block->clocks[(number * 128 + t) * num_agents + first_agent + number] = block->time;
    }
}

static void meet_warpgroup(int kind, size_t named, const char* file, int line) {
    Warpgroup& g = own_warpgroup(file, line);
    u32 number = thread / 128;
    if (g.arrived == 0) {
        g.kind = kind;
        g.file = file;
        g.line = line;
        g.named = named;
    } else if (g.kind != kind || g.line != line || strcmp(g.file, file) || g.named != named)
        fail_warpgroup(file, line, g.file, g.line);
    if (++g.arrived < 128) {
        wait_as(AT_WARPGROUP, file, line);
        return;
    }
    g.arrived = 0;
    if (kind == MULTIPLIED) perform_all(g, number);
    for (u32 t = number * 128; t < number * 128 + 128; ++t) block->fibers[t].status = RUNNABLE;
    woken = true;
    set_key();
}

EXPORT void emulator_warpgroup_wait(void* d, const char* file, int line) {
    if (fiber->committed != fiber->multiplications)
        fail(0, file, line, "thread %u waits for multiplications, and the last of them were not committed", thread);
    size_t i = find_registers(*fiber, d);
    meet_warpgroup(MULTIPLIED, i, file, line);
    if (i == fiber->registers.size()) return;
    Registers& one = fiber->registers[i];
    for (int e = 0; e < 64; ++e)
        if (one.at[e] != POISON)
            fail(0, file, line, "thread %u wrote to registers that a multiplication of its warpgroup had under way", thread);
    memcpy(one.at, one.values, sizeof one.values);
    fiber->registers.erase(fiber->registers.begin() + i);
    set_poison();
}

EXPORT void emulator_warpgroup_registers(int count, const char* file, int line) {
    if (count < 24 || count > 256 || count % 8)
        fail(0, file, line, "thread %u asks for %d registers; it may have a multiple of 8 from 24 to 256", thread, count);
    meet_warpgroup(REGISTERS, count, file, line);
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
    char text[1600];
    int length = 0;
    const char* names[] = {"is running", "waits at the barrier", "waits at cluster_sync", "waits for its warp",
                           "waits for its warpgroup", "waits at an mbarrier", "has ended"};
    const char* file = 0;
    const Mbarrier* awaited = 0;
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
            if (f.status != DONE && (!file || (f.status == AT_MBARRIER && !awaited))) {
                file = f.file;
                line = f.line;
            }
            if (f.status == AT_MBARRIER && !awaited) awaited = f.awaited;
            if (++kinds > 6) continue;
            length += snprintf(text + length, sizeof text - length, "%s thread %u %s", length ? "," : "", t, names[f.status]);
            if (f.status != DONE && length < 1000)
                length += snprintf(text + length, sizeof text - length, " (%s:%d)", f.file, f.line);
            if (f.status == AT_MBARRIER && length < 1000)
                length += snprintf(text + length, sizeof text - length,
                                   " at byte %u, which lacks %u of %u arrivals, expects %llu bytes and has copies of %llu "
                                   "under way",
                                   f.awaited->place, f.awaited->missing, f.awaited->count,
                                   (unsigned long long)f.awaited->expected, (unsigned long long)f.awaited->issued);
        }
    fail(0, file, line, "%s:%s", awaited ? "a phase that never ends" : "a divergent barrier", text);
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
        one.warpgroups.resize(num_warpgroups);
        for (Warpgroup& g : one.warpgroups) g.arrived = 0, g.under_way.clear();
        one.mbarriers.clear();
        one.clocks = 0;
        one.readers.clear();
        memset(one.shared, 0xff, shared_bytes);
        if (checked) set_states(b * SLOT, shared_bytes, LIVE);
        for (u32 t = 0; t < num_threads; ++t) prepare(one.fibers[t]);
    }
    u32 block_order[MAX_CLUSTER], warp_order[32], lane_order[32];
    for (;;) {
        woken = false;
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
                        set_poison();
                        patience = PATIENCE;
                        enter(fiber);
                        if (failed) {
                            fiber = 0;
                            return;
                        }
                        again = true;
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
        // Copies arrive when no thread can go on without them, some before others.
        for (int all = !shuffled; !opened && !woken && all < 2; ++all)
            for (u32 b = 0; b < cluster_size; ++b) {
                block = &blocks[b];
                land(blocks[b], all);
            }
        if (failed) return;
        if (!opened && !woken) return fail_stuck();
    }
    for (u32 b = 0; b < cluster_size; ++b) {
        Block& one = blocks[b];
        for (const auto& m : one.mbarriers)
            if (!m.second.copies.empty())
                return fail(0, m.second.copies[0].file, m.second.copies[0].line,
                            "the block ends while a copy of copy_bulk is under way, which nobody waits for");
        for (const Warpgroup& g : one.warpgroups)
            if (!g.under_way.empty())
                return fail(0, g.under_way[0].file, g.under_way[0].line,
                            "the block ends while a multiplication is under way, which nobody waits for");
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
    num_warpgroups = threads / 128;
    first_agent = num_warps * 32;
    num_agents = first_agent + num_warpgroups + MAX_MBARRIERS;
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
